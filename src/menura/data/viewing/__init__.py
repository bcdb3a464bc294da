"""A dataset as a local web page: episodes, cameras and plots in step, statistics, and what a check found."""

from menura.data.viewing.server import ViewServer
from menura.data.viewing.view import view_dataset
from menura.data.viewing.viewer import Viewer

__all__ = ["ViewServer", "Viewer", "view_dataset"]
