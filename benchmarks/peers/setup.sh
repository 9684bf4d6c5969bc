#!/bin/sh
# Environments of the other toolkits, in build/peers: benchmarks/peers/setup.sh
#
# Their own pins ask for versions that no longer install, so each gets what it was seen to work with.
set -e
cd "$(dirname "$0")/../.."
mkdir -p build/peers
cd build/peers
python=${PYTHON:-python3}
torch="torch==2.13.0"

$python -m venv opennmt
opennmt/bin/pip install "$torch" numpy
opennmt/bin/pip install --no-deps OpenNMT-py==3.5.1
opennmt/bin/pip install configargparse ctranslate2 fasttext-wheel flask pyahocorasick pyonmttok \
  pyyaml rapidfuzz sacrebleu sentencepiece six spacy tensorboard waitress

$python -m venv joeynmt
joeynmt/bin/pip install "$torch" "numpy<2"
joeynmt/bin/pip install --no-deps joeynmt==2.3.0
joeynmt/bin/pip install datasets editdistance importlib-metadata matplotlib pandas pylint pyyaml \
  sacrebleu seaborn "sentencepiece<0.2" subword-nmt tensorboard
