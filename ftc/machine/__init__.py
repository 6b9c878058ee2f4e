"""What this machine has for ftc: packages, devices, folders, variables, logins (no torch in this process)."""
