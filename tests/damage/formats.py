"""Every format that the sweep damages, by name."""

from tests.damage.foreign import FOREIGN
from tests.damage.ours import OURS

FORMATS = OURS | FOREIGN
