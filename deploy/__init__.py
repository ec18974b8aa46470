"""How the system is started; may start anything and is imported by nobody."""
