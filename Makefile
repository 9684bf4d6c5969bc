# Everything from a fresh clone: `make train`, `make test`. Targets re-run only what is stale.
PYTHON ?= python3
RECIPE ?= recipes/quickstart.yaml
ARGS ?=

VENV := .venv
MT := $(VENV)/bin/mt
NAME := $(basename $(notdir $(RECIPE)))
RUN := runs/$(NAME)
REPORT = $(firstword $(shell ls -t runs/*/report.html runs/*/*/report.html 2>/dev/null))

.PHONY: setup train back-translate test learn translate report lint bench clean FORCE
.DELETE_ON_ERROR:

setup: $(VENV)/.ready  ## make the environment

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || \
	  { echo "mt needs Python 3.10 to 3.13; set PYTHON=python3.12, for example" >&2; exit 1; }
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV), which takes a minute or two"
	@$(VENV)/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	@$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	@$(VENV)/bin/python -m pip install -qq --constraint constraints.txt --group dev \
	  --editable '.[forecast,onnx,sweep]'
	@touch $@

train: $(RUN)/scores.json  ## corpus, tokenizer, training, evaluation, report: RECIPE=… ARGS="--trainer.max_epochs 3"

# How a run is to start is said once; all other options are kept beside it, and others make it stale.
ONCE := $(filter --resume --overwrite,$(ARGS))
OPTIONS := $(subst ','\'',$(if $(ONCE),$(filter-out $(ONCE),$(ARGS)),$(ARGS)))
$(RUN)/.arguments: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' '$(OPTIONS)' | cmp -s - $@ || { \
	  if [ -e $@ ]; then cp -p $@ $@.before; fi; printf '%s\n' '$(OPTIONS)' > $@; }

# What a run is made from: its recipe, the tokenizer's, and the local text that ARGS names.
TOKENIZER := $(wildcard $(shell sed -n 's/^tokenizer: *//p' $(RECIPE) 2>/dev/null))
FILES := $(shell printf '%s\n' $(ARGS) | sed -n -e '/^--corpus.files$$/{n;p;}' -e 's/^--corpus.files=//p')
TEXT := $(if $(FILES),$(wildcard $(FILES) $(FILES)/*))

# A run that was interrupted goes on where it stood, unless something has changed since. Arguments
# that no run began with, by a mistake in them, say, are forgotten: the run that is there stays fresh.
$(RUN)/scores.json: $(RECIPE) $(TOKENIZER) $(TEXT) $(RUN)/.arguments $(if $(ONCE),FORCE) | $(VENV)/.ready
	@$(MT) train $(RECIPE) --output $(RUN) $(ARGS) $(if $(ONCE),,$$( \
	  if [ -e $(RUN)/recipe.yaml ] && ! [ -e $@ ] && \
	    [ -z "$$(find $^ -prune -newer $(RUN)/recipe.yaml)" ]; then echo --resume; else echo --overwrite; fi)); \
	  status=$$?; begun=$$(find $(RUN)/recipe.yaml -newer $(RUN)/.arguments 2>/dev/null); \
	  if [ -z "$$begun" ]; then \
	    mv -f $(RUN)/.arguments.before $(RUN)/.arguments 2>/dev/null || rm -f $(RUN)/.arguments; fi; \
	  rm -f $(RUN)/.arguments.before; \
	  exit $$status

back-translate:  ## as train, with more text in the target language alone: ALONE=FILE
	@test -n "$(ALONE)" || { \
	  echo "no text in the target language; name a file of it with ALONE=FILE" >&2; exit 1; }
	@$(MAKE) --no-print-directory train RUN='$(RUN)-back-translation' \
	  ARGS='$(ARGS) --back_translation.files $(ALONE)'

PYTEST = $(VENV)/bin/python -m pytest --numprocesses auto --maxprocesses 4

test: $(VENV)/.ready  ## the whole suite
	$(PYTEST) --dist loadscope --no-loadscope-reorder

learn: $(VENV)/.ready  ## train every option of the network to copy, reverse or sort: 69 short trainings
	$(PYTEST) tests/learning --every

translate: $(VENV)/.ready  ## translate lines from standard input
	@test -d $(RUN)/bundle || { echo "no translator in $(RUN); run \`make train\` first" >&2; exit 1; }
	@$(MT) translate $(RUN)/bundle $(ARGS)

report:  ## open the newest report
	@test -n "$(REPORT)" || { echo "no report yet; run \`make train\` first" >&2; exit 1; }
	@echo $(REPORT)
	@$(or $(shell command -v xdg-open),$(shell command -v open),true) $(REPORT) >/dev/null 2>&1 || true

lint: $(VENV)/.ready  ## style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(VENV)/.ready  ## speed and memory, as tables
	for script in benchmarks/*.py; do $(VENV)/bin/python $$script || exit 1; done

clean:  ## remove what can be made again, but no run
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find mt tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

FORCE:
