"""The commands of `ssr`, one file each; `main` reads the command line and imports the one that is called."""
