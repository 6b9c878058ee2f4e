"""Tables and figures of finished runs, drawn from what run folders hold."""
