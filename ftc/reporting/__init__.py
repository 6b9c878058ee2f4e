"""Tables and figures of finished runs, drawn from their run folders."""
