#!/usr/bin/env bash
# Build a pretraining corpus: download → text → formatted text → vocabulary → shards.
#
#   ./scripts/create_datasets.sh --output corpus --nproc 4 --download --format --encode
#   ./scripts/create_datasets.sh --output corpus --nproc 4 --input my_texts wikipedia.xml.bz2
#   ./scripts/create_datasets.sh --output corpus --nproc 4 --encode --encode-type bert
#
# Each stage can run alone; what an earlier start finished is kept.

set -euo pipefail

usage() {
    cat <<'TEXT'
usage: create_datasets.sh -o DIR [options]

  -o, --output DIR        folder for everything: DIR/download, DIR/formatted, DIR/vocab, DIR/encoded (required)
  -p, --nproc N           worker processes (default: every core)
      --input PATH …      text of your own: files or folders, JSON lines, Wikipedia dumps; with --encode and no
                          --format, formatted text.  --format reads it beside what --download fetched
      --text_field NAME   column or key of tables that holds the text (default text)

  Stages; without any of these, formatting and encoding run:
      --download          Wikipedia and books into DIR/download; goes on where an earlier start was ended, and
                          says how to provide a file by hand where there is no network
      --format            text to one sentence a line, blank line between documents
      --encode            formatted text to a vocabulary, unless one is given or there, and shards
      --overwrite         the stages of this start remove what earlier ones made with other settings or text

  Options of --download:
      --language L        which Wikipedia: en (default), de, simple …
      --date D            date of its dump, such as 20261101, or latest (default)
      --mirror URL …      where to fetch it from instead of dumps.wikimedia.org and its mirrors
      --no-books          Wikipedia only
      --books_mirror URL  where books1.tar.gz, yours or the published one, lies

  Options of --encode:
      --encode-type TYPE  bert: sentence pairs, lengths 128 and 512; roberta: full sentences of 512 (default)
      --vocab_file F      vocab.txt, tokenizer.json, or a folder with one; none: one is trained
      --extend_vocab F    the same, to which words of the text are added until there are --vocab_size
      --vocab_size N      size of the vocabulary to train (default 30522)
      --vocab_kind KIND   kind of the vocabulary to train: wordpiece (default) or byte_bpe, RoBERTa's
      --cased             the vocabulary to train keeps capitals and accents
      --max_seq_len L …   other lengths than the type's, for small builds
      --eval_fraction F   share of the documents held out (default 0.01)
      --masking KIND      dynamic (default): masks are drawn in training; static: now, in NVIDIA's layout
      --dupe_factor N     times that every document is encoded, each with other cuts and masks (default 1)
      --seed N            seed of every random choice, in all stages
  -h, --help              this text

The environment is set up at the first start (.venv, unless one is active); PYTHON=/path/to/python takes that one as it is.
TEXT
}

usage_error() {
    echo "error: create_datasets.sh: $1 (create_datasets.sh --help lists all options.)" >&2
    exit 2
}

text_field=() language=() date=() mirrors=() books=true books_mirror=()
output="" nproc=0 encode_type=roberta vocab_file="" vocab_size="" vocab_options=() overwrite=() seed=() extra=()
download=false format=false encode=false inputs=() lengths=()

while (($#)); do
    option=$1
    shift
    case $option in
        -o | --output | -p | --nproc | --encode-type | --encode_type | --vocab_file | --vocab-file | \
            --extend_vocab | --extend-vocab | --vocab_size | --vocab-size | --vocab_kind | --vocab-kind | --seed | \
            --eval_fraction | --eval-fraction | --masking | --dupe_factor | --dupe-factor | --text_field | --text-field | \
            --language | --date | --books_mirror | --books-mirror)
            (($#)) && [[ $1 != --* ]] || usage_error "$option: no value follows it."
            value=$1
            shift
            ;;&
        -o | --output) output=$value ;;
        -p | --nproc) nproc=$value ;;
        --encode-type | --encode_type) encode_type=$value ;;
        --vocab_file | --vocab-file) vocab_file=$value ;;
        --extend_vocab | --extend-vocab) vocab_options+=(--extend "$value") ;;
        --vocab_size | --vocab-size) vocab_size=$value ;;
        --vocab_kind | --vocab-kind) vocab_options+=(--kind "$value") ;;
        --overwrite) overwrite=(--overwrite) ;;
        --cased) vocab_options+=(--no-lowercase) ;;
        --eval_fraction | --eval-fraction | --masking | --dupe_factor | --dupe-factor) extra+=("$option" "$value") ;;
        --seed) seed=(--seed "$value") ;;
        --text_field | --text-field) text_field=(--text_field "$value") ;;
        --language) language=(--language "$value") ;;
        --date) date=(--date "$value") ;;
        --books_mirror | --books-mirror) books_mirror=(--mirror "$value" --any_archive) ;;
        --mirror)
            while (($#)) && [[ $1 != -* ]]; do mirrors+=("$1") && shift; done
            ((${#mirrors[@]})) || usage_error "--mirror: no address follows it."
            ;;
        --input)
            while (($#)) && [[ $1 != -* ]]; do inputs+=("$1") && shift; done
            ((${#inputs[@]})) || usage_error "--input: no path follows it."
            ;;
        --max_seq_len | --max-seq-len)
            while (($#)) && [[ $1 != -* ]]; do lengths+=("$1") && shift; done
            ((${#lengths[@]})) || usage_error "--max_seq_len: no length follows it."
            ;;
        --format) format=true ;;
        --encode) encode=true ;;
        --no-books | --no_books) books=false ;;
        --download) download=true ;;
        -h | --help) usage && exit 0 ;;
        *) usage_error "unknown option $option." ;;
    esac
done

[[ -n $output ]] || usage_error "--output is missing: name a folder."
[[ $nproc =~ ^[0-9]+$ ]] || usage_error "--nproc: found '$nproc', wanted a whole number."
[[ $encode_type == bert || $encode_type == roberta ]] ||
    usage_error "--encode-type: found '$encode_type', wanted bert or roberta."
[[ -z $vocab_file || -z $vocab_size$(printf %s "${vocab_options[@]}") ]] ||
    usage_error "--vocab_file contradicts --vocab_size, --extend_vocab, --vocab_kind and --cased, about one to train: keep one."
[[ -n $vocab_size || " ${vocab_options[*]} " != *" --extend "* ]] ||
    usage_error "--extend_vocab: say with --vocab_size how many tokens there shall be in all."
$download || $format || $encode || { format=true encode=true; }

# shellcheck source-path=SCRIPTDIR source=lib/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib/environment.sh"
[[ -n ${PYTHON:-} ]] || use_environment running  # $PYTHON is taken as it is
corpus() { PYTHONPATH=$REPOSITORY${PYTHONPATH:+:$PYTHONPATH} "$PYTHON" -m bert_pytorch.corpus "$@"; }

wikipedia=$output/download/wikipedia bookscorpus=$output/download/bookscorpus
if $download; then
    ((${#mirrors[@]} == 0)) || mirrors=(--mirror "${mirrors[@]}")
    corpus download wikipedia --output "$wikipedia" "${language[@]}" "${date[@]}" "${mirrors[@]}"
    ! $books || corpus download bookscorpus --output "$bookscorpus" "${books_mirror[@]}"
fi

formatted=("$output/formatted")
if $format; then
    [[ ! -d $wikipedia ]] || inputs+=("$wikipedia")
    ! $books || [[ ! -d $bookscorpus ]] || inputs+=("$bookscorpus")
    ((${#inputs[@]})) ||
        usage_error "--input is missing: name text, a Wikipedia dump, or folders with such files; or give --download."
    corpus format --input "${inputs[@]}" --output "$output/formatted" --processes "$nproc" "${text_field[@]}" "${seed[@]}" \
        "${overwrite[@]}"
elif ((${#inputs[@]})); then
    formatted=("${inputs[@]}")
fi
$encode || exit 0

if [[ -z $vocab_file ]]; then
    vocab_file=$output/vocab
    asked=$vocab_size$(printf %s "${vocab_options[@]}" "${overwrite[@]}")
    if [[ -z $asked && -f $vocab_file/vocabulary.json ]]; then
        echo "vocabulary: $vocab_file (of an earlier start; --vocab_size or --overwrite would make another)"
    else
        corpus vocab --input "${formatted[@]}" --output "$vocab_file" --vocab_size "${vocab_size:-30522}" \
            "${vocab_options[@]}" "${seed[@]}" "${overwrite[@]}"
    fi
fi

# bert: the first length sees shorter sequences too, later ones only full ones.  roberta: never (Liu et al. 2019, §3.1).
if [[ $encode_type == bert ]]; then
    ((${#lengths[@]})) || lengths=(128 512)
    short_seq_prob=(0.1)
    while ((${#short_seq_prob[@]} < ${#lengths[@]})); do short_seq_prob+=(0); done
    sequences=pairs
else
    ((${#lengths[@]})) || lengths=(512)
    short_seq_prob=(0)
    sequences=full_sentences
fi
corpus encode --input "${formatted[@]}" --output "$output/encoded" --vocab_file "$vocab_file" --sequences "$sequences" \
    --max_seq_len "${lengths[@]}" --short_seq_prob "${short_seq_prob[@]}" --processes "$nproc" "${seed[@]}" "${extra[@]}" \
    "${overwrite[@]}"
