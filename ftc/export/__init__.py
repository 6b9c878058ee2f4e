"""The artefact to deploy, made from the folder of a finished run by code that trains nothing."""
