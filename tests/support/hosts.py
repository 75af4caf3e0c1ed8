"""Machines made of namespaces: those of the benchmarks."""

from perf.hosts import NETWORK, PYTHONS, Alone, Host, Hosts, make_key, run

__all__ = ["NETWORK", "PYTHONS", "Alone", "Host", "Hosts", "make_key", "run"]
