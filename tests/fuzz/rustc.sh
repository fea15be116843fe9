#!/bin/sh
# The compiler, as cargo calls it: our own crates and the parsers under them are instrumented for coverage, as libFuzzer
# needs it. Works on stable.
rustc=$1
shift
case " $* " in
  *" --crate-name build_script"*) exec "$rustc" "$@" ;;
  *" --crate-name modelpress"* | *" --crate-name fuzz "* | *" --crate-name serde_json "* | *" --crate-name serde_norway "* | \
    *" --crate-name unsafe_libyaml_norway "* | *" --crate-name multer "* | *" --crate-name tokenizers "* | \
    *" --crate-name minijinja "*)
    exec "$rustc" "$@" --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
      -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
      -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1
    ;;
esac
exec "$rustc" "$@"
