# fish completion for sora, made by `sora completion fish`
function __sora_completion
    set -l words (commandline -opc)
    set -l unfinished (commandline -ct | string unescape)
    set -l before (string match -r -- '^--?[^=]+=' "$unfinished")
    set -l answers (_SORA_COMPLETE="=$unfinished" $words 2>/dev/null)
    if test (count $answers) -eq 0
        __fish_complete_path "$unfinished"
    else
        string replace -r -- '^' "$before" $answers
    end
end
complete -c sora -f -a '(__sora_completion)'
