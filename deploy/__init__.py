"""How the system is started and watched. May import every other package; none imports it."""
