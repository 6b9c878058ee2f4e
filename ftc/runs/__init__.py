"""What each command does, under the command's name, and the parts and stages that runs are made of."""
