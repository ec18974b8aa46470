from producer import *  # noqa: F403  # whatever it exports
