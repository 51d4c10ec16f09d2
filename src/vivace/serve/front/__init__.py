"""What clients meet: HTTP, limits, health, metrics, the page for people; and the life of the server."""
