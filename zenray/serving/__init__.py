"""The Ray Serve application.

Ray reads its environment the moment it is imported, so it is prepared before any module of this package
can import Ray.
"""

from zenray.serving.environment import prepare_environment

prepare_environment()
