"""The small priors that ship with the project, and how they are trained."""
