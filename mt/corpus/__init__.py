"""Text comes in: hub, files and package catalogues become one Arrow-backed parallel corpus."""
