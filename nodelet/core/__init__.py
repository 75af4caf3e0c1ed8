"""The pure core of the nodelet: its lease, who runs what, what is sent and kept."""
