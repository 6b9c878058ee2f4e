"""What is deployed: made from the folder of a finished run, by nothing that trains."""
