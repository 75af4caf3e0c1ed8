"""Provisioning: from bare machines to nodes of a cluster."""
