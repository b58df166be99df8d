"""Training on several cores: processes that each work on a share of every batch's tasks.

A second thread helps small nets little, a second process much. The loss couples the tasks of a
batch by a few numbers of each, its `Terms`: so the nets run, forwards and backwards, where a share
is, and the loss itself is evaluated in one place, on all.
"""

from __future__ import annotations

import copy
import multiprocessing
import signal
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch as th
from torch.utils._pytree import tree_map

from ent_bc.batches import TaskBatches
from ent_bc.losses import Metrics, TaskLoss, Terms
from ent_bc.policies import TaskConditionedPolicy


class TrainingWorkers:
    """Processes that work on shares of each batch, beside this one, which has the first share.

    In each step they are told the parameters, tell their terms, are told the loss's gradient for
    these, and tell its gradient for the parameters. While the optimiser steps they draw their share
    of the next batch.

    Args:
        n_workers: Shares of a batch: this process and the others.
        policy: Is trained here; they have copies.
        loss: The loss.
        batches: The whole batches.

    Attributes:
        batches: The batches with this process's share of the tasks.
    """

    def __init__(
        self, n_workers: int, policy: TaskConditionedPolicy, loss: TaskLoss, batches: TaskBatches
    ) -> None:
        self._policy, self._loss = policy, loss
        self.batches = batches.share(0, n_workers)
        self._n_threads = th.get_num_threads()
        n_threads = max(1, self._n_threads // n_workers)
        th.set_num_threads(n_threads)
        context = multiprocessing.get_context("spawn")
        self._connections: list[Connection] = []
        self._processes = []
        for index in range(1, n_workers):
            ours, theirs = context.Pipe()
            # Of a copy, for torch shares the memory of what it sends with the process.
            nets = copy.deepcopy(policy)
            arguments = (theirs, nets, loss, batches.share(index, n_workers), n_threads)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()  # so that its end is seen here
            self._connections.append(ours)
            self._processes.append(process)

    @property
    def n_workers(self) -> int:
        """Shares of a batch: this process and the others."""
        return 1 + len(self._processes)

    def close(self) -> None:
        """Ends the processes."""
        for connection in self._connections:
            connection.close()
        for process in self._processes:
            process.join()
        th.set_num_threads(self._n_threads)

    def backward(
        self, number: int, obs: Mapping[str, th.Tensor], acts: th.Tensor, scale: float
    ) -> Metrics:
        """Adds the gradient of a batch's loss to the parameters'.

        Args:
            number: The batch's.
            obs: Of this process's share.
            acts: The same.
            scale: What the gradient is multiplied with.

        Raises:
            RuntimeError: A process has ended.
        """
        try:
            return self._backward(number, obs, acts, scale)
        except (EOFError, ConnectionError):
            raise RuntimeError(
                "A training process has ended; its error is above. If there is none it was killed, "
                "maybe for want of memory. The parameters are those before this step."
            ) from None

    def _backward(
        self, number: int, obs: Mapping[str, th.Tensor], acts: th.Tensor, scale: float
    ) -> Metrics:
        parameters = [parameter.detach().numpy() for parameter in self._policy.parameters()]
        for connection in self._connections:
            connection.send((number, parameters))
        own = self._loss.terms(self._policy, obs, acts)
        shares = [_to_terms(_tell(own))]
        shares += [_to_terms(connection.recv()) for connection in self._connections]
        together = Terms(*(th.cat(leaves) for leaves in zip(*map(_leaves, shares), strict=True)))
        metrics = self._loss.combine(self._policy, together)
        (metrics.loss * scale).backward()
        for connection, share in zip(self._connections, shares[1:], strict=True):
            connection.send(_gradients(_leaves(share)))
        _go_back(own, _gradients(_leaves(shares[0])))
        for connection in self._connections:
            of_share = zip(self._policy.parameters(), connection.recv(), strict=True)
            for parameter, gradient in of_share:
                if gradient is not None:
                    assert parameter.grad is not None, "every share trains the same parameters"
                    parameter.grad += th.from_numpy(gradient)
        return metrics


def _work(
    connection: Connection,
    policy: TaskConditionedPolicy,
    loss: TaskLoss,
    batches: TaskBatches,
    n_threads: int,
) -> None:
    """A process's work, until the connection ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer stops, and ends the connection
    th.set_num_threads(n_threads)
    policy.set_training_mode(True)
    ahead: dict[int, Any] = {}
    try:
        while True:
            number, parameters = connection.recv()
            batch = tree_map(th.as_tensor, ahead.get(number) or batches.batch(number))
            with th.no_grad():
                for parameter, values in zip(policy.parameters(), parameters, strict=True):
                    parameter.copy_(th.from_numpy(values))
            policy.zero_grad()
            terms = loss.terms(policy, batch["obs"], batch["acts"])
            connection.send(_tell(terms))
            _go_back(terms, connection.recv())
            connection.send(_gradients(policy.parameters()))
            ahead = {number + 1: batches.batch(number + 1)}
    except (EOFError, ConnectionError):
        return


def _leaves(terms: Terms) -> list[th.Tensor]:
    return list(vars(terms).values())


def _tell(terms: Terms) -> list[np.ndarray]:
    return [leaf.detach().numpy() for leaf in _leaves(terms)]


def _to_terms(arrays: Sequence[np.ndarray]) -> Terms:
    """Terms that gather the loss's gradient for them."""
    leaves = map(th.from_numpy, arrays)
    return Terms(*(leaf.requires_grad_(leaf.is_floating_point()) for leaf in leaves))


def _gradients(tensors: Any) -> list[np.ndarray | None]:
    return [None if tensor.grad is None else tensor.grad.numpy() for tensor in tensors]


def _go_back(terms: Terms, gradients: Sequence[np.ndarray | None]) -> None:
    """From the loss's gradient for the terms to the parameters' gradient."""
    told = [th.zeros(0) if gradient is None else th.from_numpy(gradient) for gradient in gradients]
    pairs = [pair for pair in zip(_leaves(terms), told, strict=True) if pair[0].requires_grad]
    leaves, gradients_of = zip(*pairs, strict=True)
    th.autograd.backward(leaves, gradients_of)
