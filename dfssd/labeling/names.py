"""Names of the engines, apart from them, since the command line shows them before anything large is imported."""

SERIAL, RAY = "serial", "ray"
ENGINES = (SERIAL, RAY)
