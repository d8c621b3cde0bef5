"""Where rows, updates and records meet: the client app, the server app, the engines."""
