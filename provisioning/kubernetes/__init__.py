"""Nodes that are pods of Kubernetes. Needs the extra `burla[kubernetes]`."""
