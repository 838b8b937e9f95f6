"""What stands between the page and the network: who may do what, downloads, endpoints."""
