# Everything happens in .venv, made on first use; only Python >= 3.10 with venv, and make, are needed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test check release-check assets figures-check case24 benchmark general gpu speed clean

demo: $(READY)
	$(BIN)/crosskey demo --output demo-output

test: $(READY)
	$(BIN)/python -m pytest -q

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# What documents and the demo show, made by the present code: the patient's model of the demo (3
# minutes, without its described points, to keep it small), the checksums of all models, and the screenshots. Needs EGL or OSMesa.
assets: $(READY)
	rm -f Resources/Models/demo-patient.pt
	$(BIN)/crosskey prepare --mri Resources/SampleData/MRI.nii.gz --seed 0 --minutes 3 \
	  --output Resources/Models/demo-patient.pt
	$(BIN)/python -c 'from dataclasses import replace; from CrossKEYLib import Model; \
	  path = "Resources/Models/demo-patient.pt"; replace(Model.load(path), described=None).save(path)'
	cd Resources/Models && sha256sum *.pt > SHA256SUMS
	PYTHONPATH=.:Testing/Slicer $(BIN)/python Testing/Slicer/make_screenshots.py

# Figures that a change of structure must not change: run before and after, compare the folders
figures-check: $(READY)
	mkdir -p figures-check
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m CrossKEYLib demo --threads 1 --seed 0 \
	  --output figures-check/demo
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m CrossKEYLib register --threads 1 --seed 0 \
	  --mri $(CASE24)/Case24_FLAIR_in_USgrid.nii.gz --ius $(CASE24)/Case24_US_before.nii.gz \
	  --output figures-check/case24.tfm --report figures-check/case24.json

# The tables of docs/results-0.1.md: prepare on each MRI of RESECT Case 24, then 60 misplaced starts
CASE24 ?= ../shared/data/resect/case24
case24: $(READY)
	mkdir -p case24-output
	for c in FLAIR T1; do \
	  $(BIN)/crosskey prepare --mri $(CASE24)/Case24_$${c}_in_USgrid.nii.gz \
	    --output case24-output/$$c.pt --minutes 3 --seed 0 && \
	  $(BIN)/crosskey benchmark --methods crosskey --model case24-output/$$c.pt --seeds 10 \
	    --mri $(CASE24)/Case24_$${c}_in_USgrid.nii.gz --ius $(CASE24)/Case24_US_before.nii.gz \
	    --landmarks $(CASE24)/Case24-MRI-beforeUS.tag --output case24-output/$$c || exit 1; \
	done

# The tables of docs/benchmark.md; peers need .venv/bin/pip install -e ".[benchmark]"
benchmark: $(READY)
	$(BIN)/crosskey benchmark --case $(CASE24) --methods crosskey,mi,elastix,ants,lc2,mind \
	  --seeds 5 --output benchmark-output

# On a machine with a CUDA device and torch, within ten minutes: the tests marked gpu, then the table
# in gpu-output; without a GPU the same on the processor
gpu: $(READY)
	$(BIN)/python -m pytest -q -m gpu Testing/Library
	$(BIN)/python -m Testing.Studies.gpu --output gpu-output

# The table of docs/speed.md, on a machine that does nothing else
HEAD ?= ../shared/data/heads/seg3d-mr/T1.nii.gz
speed: $(READY)
	$(BIN)/python -m Testing.Studies.speed --mri $(CASE24)/Case24_FLAIR_in_USgrid.nii.gz \
	  --ius $(CASE24)/Case24_US_before.nii.gz --head $(HEAD) --output speed-output

# The bundled general model: goes on from that of version 0.1 (commit 07c0183, which says how it was
# made) on all training heads, in two runs of 95 and 103 minutes of one core, both along the whole
# schedule of the learning rate. Repeated, it goes on where it was interrupted.
# PLAN names the images, beside which it lies.
PLAN ?= Resources/Configs/pretrain.yaml
general: general-output/crosskey-general.pt
general-output/crosskey-general-0.1.pt: | $(READY)
	mkdir -p general-output
	git show 07c0183:Resources/Models/crosskey-general.pt > $@.part && mv $@.part $@
general-output/crosskey-general-1.pt: general-output/crosskey-general-0.1.pt
	$(BIN)/python -m CrossKEYLib pretrain --data $(PLAN) --model $< --output $@ --threads 1 --seed 0
general-output/crosskey-general.pt: general-output/crosskey-general-1.pt
	$(BIN)/python -m CrossKEYLib pretrain --data $(PLAN) --model $< --output $@ --threads 1 --seed 1

# torch goes first and alone, at the pinned version, so that nothing else can choose another build
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .
	@touch $(READY)

# Before a release: fails while the repository's address is a placeholder
release-check: $(READY)
	$(BIN)/python Resources/ExtensionIndex/check_release.py

clean:
	rm -rf .venv demo-output
