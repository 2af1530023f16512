"""The measuring stick of the search: recorded curves of many settings, and searches replayed on them."""
