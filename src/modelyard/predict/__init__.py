"""THE SPINE: auth -> limits -> routing -> batching -> runtime -> journal -> answer.

Every predict request of every surface and transport takes this road, and only this one. `road` knows whether a
request may take it and where it leads, `prediction` is one request on its way, `spine` takes all requests of one turn
of the loop along it together.
"""

from modelyard.predict.ports import Commit
from modelyard.predict.prediction import REQUEST_ID, Prediction
from modelyard.predict.replay import Replays
from modelyard.predict.road import OFF_LOOP_BYTES
from modelyard.predict.spine import Predictor
from modelyard.predict.waiting import WaitingPredictor

__all__ = ["OFF_LOOP_BYTES", "REQUEST_ID", "Commit", "Prediction", "Predictor", "Replays", "WaitingPredictor"]
