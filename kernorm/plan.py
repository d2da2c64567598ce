"""The old place of `Published`: study files import it from `kernorm` itself. Gone in the release after next."""

import warnings

from kernorm.studies.definition import Published as Published

warnings.warn("Write `from kernorm import Published`: kernorm.plan is going away.", FutureWarning, stacklevel=2)
