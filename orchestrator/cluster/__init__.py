"""Ray: connects to a cluster, measures its resources, and requests nodes from its autoscaler."""
