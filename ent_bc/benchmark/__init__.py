"""The benchmark: cells that are run once each, their results, and the tables and plots of them."""
