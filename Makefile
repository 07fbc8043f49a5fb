# Every target builds the environment it needs in .venv first. `make` alone lists the targets.

PYTHON ?= python3
# What pip is to install torch as, e.g. TORCH="torch torchvision --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= "torch>=2.5" torchvision

VENV := .venv
BIN := $(VENV)/bin
DATA := datasets/digits/data.yaml
RUN := runs/demo
COMPARE := $(BIN)/yolov10-dysample compare device=cpu
COMPARE_DATA := datasets/compare/data.yaml
COMPARE_TRAIN := imgsz=96 batch=16 nbs=16 mosaic=0
COMPARE_ARMS := nearest,bilinear,dysample,dysample+,dysample-s,dysample-s+
# results/compare has the runs on record, of the machine they ran on.
COMPARE_OUT ?= runs/compare
# Workers of one thread, a core each (`logical`) or one more (`auto`); one that has nothing left takes from another.
PARALLEL := --dist=worksteal --numprocesses
# For `make compat`: interpreters that are not on the PATH as python3.10, python3.12 and python3.13, separated by spaces.
PYTHONS ?=
DEMO_TRAIN := imgsz=128 epochs=12 batch=16 nbs=16 seed=0
# On images of 128 px the labels would hide what they label.
DEMO_DRAW := line_width=1 show_labels=False show_conf=False

.DEFAULT_GOAL := help
.PHONY: help demo test quick compat lint bench gpu compare trees clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/installed: pyproject.toml
	@echo "== Building $(VENV): a few minutes, most of it torch (several GB)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[demo,export,mnn,benchmark,compare,test,lint]"
	touch $@

$(DATA): $(VENV)/installed scripts/make_digits.py scripts/dataset_folder.py
	$(BIN)/python -m scripts.make_digits --out $(dir $(DATA)) --force

demo: $(DATA) ## Train, validate, predict and export yolov10n-dysample with stock yolo commands (about 6 minutes)
	@rm -rf $(RUN)
	$(BIN)/yolo detect train model=yolov10n-dysample.yaml data=$(DATA) $(DEMO_TRAIN) project="$$PWD/$(RUN)" name=train
	$(BIN)/yolo detect val model=$(RUN)/train/weights/best.pt data=$(DATA) imgsz=128 project="$$PWD/$(RUN)" name=val
	$(BIN)/yolo detect predict model=$(RUN)/train/weights/best.pt source=datasets/digits/images/val imgsz=128 \
		$(DEMO_DRAW) project="$$PWD/$(RUN)" name=predict
	$(BIN)/yolo export model=$(RUN)/train/weights/best.pt format=onnx imgsz=128
	$(BIN)/yolo detect predict model=$(RUN)/train/weights/best.onnx source=datasets/digits/images/val imgsz=128 \
		$(DEMO_DRAW) project="$$PWD/$(RUN)" name=predict-onnx
	@echo "== Pictures: $(RUN)/predict and $(RUN)/predict-onnx; curves: $(RUN)/train/results.png"
	@echo "== Weights:  $(RUN)/train/weights/best.pt and best.onnx"

test: $(VENV)/installed ## Run every test, real yolo processes included
	OMP_NUM_THREADS=1 YOLOV10_DYSAMPLE_REQUIRE_RUNTIMES=1 $(BIN)/python -m pytest $(PARALLEL)=auto --durations=20

quick: $(VENV)/installed ## Run the tests that neither train, nor start many processes, nor compile
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)=logical -m "not slow"

compat: $(VENV)/installed ## Test the oldest, middle and newest versions, each installed apart (half an hour, several GB)
	$(BIN)/python -m scripts.compat $(PYTHONS)

bench: $(VENV)/installed ## Measure speed, memory and size beside stock; writes results/speed.*, docs/speed.md, the README (up to half an hour)
	$(BIN)/yolov10-dysample benchmark reference=tests/reference/published_dysample.py out=results/speed.json
	$(BIN)/python -m scripts.speed_docs

gpu: $(VENV)/installed ## On a machine with NVIDIA GPUs: test, train, time and export; writes results/gpu.json, docs/speed.md
	$(BIN)/python -m scripts.gpu

$(COMPARE_DATA): $(VENV)/installed scripts/make_digits.py scripts/dataset_folder.py
	$(BIN)/python -m scripts.make_digits --out $(dir $@) --imgsz 96 --train 640 --val 320 --min-size 8 --force

compare: $(COMPARE_DATA) ## Train yolov10n with each upsampling, in pairs over 5 seeds; stop it at any time (2 hours)
	$(COMPARE) data=$(COMPARE_DATA) arms=$(COMPARE_ARMS) out=$(COMPARE_OUT)/scratch $(COMPARE_TRAIN) epochs=15
	test -f runs/stock/ended || { rm -rf runs/stock && $(BIN)/yolo detect train model=yolov10n.yaml data=$(COMPARE_DATA) \
		$(COMPARE_TRAIN) epochs=30 seed=1000 workers=0 project="$$PWD/runs" name=stock && mkdir -p runs/stock && touch runs/stock/ended; }
	$(COMPARE) data=$(COMPARE_DATA) warm_start=runs/stock/weights/last.pt \
		arms=nearest,bilinear,dysample,dysample:init=nearest out=$(COMPARE_OUT)/warm $(COMPARE_TRAIN) epochs=6 warmup_epochs=1

trees: $(VENV)/installed ## Make datasets/trees: real aerial photographs with a box round every tree crown (20 MB)
	$(BIN)/python -m scripts.make_trees

lint: $(VENV)/installed ## Check style, types, workflows and packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/*.yml
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.citation-file-format --default-filetype yaml CITATION.cff
	$(BIN)/zizmor --quiet --offline .github
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/twine check --strict dist/*

clean: ## Remove the environment and what these targets made; trainings of yours stay
	rm -rf $(VENV) build dist $(RUN) runs/compare/scratch runs/compare/warm runs/stock datasets/digits datasets/compare datasets/trees
