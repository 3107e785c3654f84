"""Looking inside a trained language model: attention, hidden states, the logit lens, losses."""

from tensorgrad.models.inspection.look import Inspection, Lens, hidden_states, logit_lens
from tensorgrad.models.inspection.opening import opened
from tensorgrad.models.inspection.page import html_page, write_page
from tensorgrad.models.inspection.picture import write_picture

__all__ = [
    "Inspection",
    "Lens",
    "hidden_states",
    "html_page",
    "logit_lens",
    "opened",
    "write_page",
    "write_picture",
]
