"""The shell scripts of `sora completion`, one per shell.

All work the same way: they run `sora` with the words before the cursor, the unfinished word in _SORA_COMPLETE after
an "=" (so that it is never empty), and read one "value<TAB>help" a line. No answer means: offer file names.
"""

from __future__ import annotations

BASH = r"""# bash completion for sora, made by `sora completion bash`
_sora_completion() {
    # COMP_WORDS is split at ":" and "=" too; put 16:9 and --res=720p together again.
    local rest=${COMP_LINE:0:COMP_POINT} words=() count=0 index word space
    for ((index = 0; index <= COMP_CWORD; index++)); do
        space=${rest%%[![:space:]]*}
        rest=${rest#"$space"}
        if ((index == COMP_CWORD)); then word=$rest; else word=${COMP_WORDS[index]}; fi
        rest=${rest#"$word"}
        if ((count > 0)) && [[ -z $space ]]; then
            words[count - 1]+=$word
        else
            words[count]=$word
            count=$((count + 1))
        fi
    done
    local unfinished=${words[count - 1]} quote=
    case $unfinished in
        [\"\']*) quote=${unfinished:0:1} unfinished=${unfinished:1} ;;
        *) unfinished=${unfinished//\\/} ;;
    esac
    # Readline replaces what follows the last ":" or "=" only, so the part before is cut from the answers.
    local value=$unfinished cut=
    if [[ $unfinished == -*=* ]]; then value=${unfinished#*=}; fi
    if [[ $COMP_WORDBREAKS == *:* && -z $quote ]]; then cut=${value%"${value##*:}"}; fi
    local answer
    COMPREPLY=()
    while IFS=$'\t' read -r answer _; do
        [[ -n $answer ]] || continue
        answer=${answer#"$cut"}
        if [[ -z $quote ]]; then answer=$(printf '%q' "$answer"); fi
        COMPREPLY+=("$answer")
    done < <(_SORA_COMPLETE="=$unfinished" "$1" "${words[@]:1:count-2}" 2>/dev/null)
}
complete -o bashdefault -o default -F _sora_completion sora
"""

ZSH = r"""#compdef sora
# zsh completion for sora, made by `sora completion zsh`
_sora() {
    local line value
    local -a answers
    local unfinished="${(Q)PREFIX}"
    # For --res=720p only the part after the "=" is completed.
    if [[ $PREFIX == -*=* ]]; then compset -P '*='; fi
    while IFS= read -r line; do
        value="${${line%%$'\t'*}//:/\\:}"
        if [[ $line == *$'\t'* ]]; then
            answers+=("$value:${line#*$'\t'}")
        else
            answers+=("$value")
        fi
    done < <(_SORA_COMPLETE="=$unfinished" "$words[1]" "${(@Q)words[2,CURRENT-1]}" 2>/dev/null)
    if (( $#answers )); then
        _describe -V 'sora' answers
    else
        _files
    fi
}
if [[ $funcstack[1] == _sora ]]; then
    _sora "$@"
else
    compdef _sora sora
fi
"""

FISH = r"""# fish completion for sora, made by `sora completion fish`
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
"""

POWERSHELL = r"""# PowerShell completion for sora, made by `sora completion powershell`
Register-ArgumentCompleter -Native -CommandName sora -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)
    $words = @($commandAst.CommandElements | Select-Object -Skip 1 |
        Where-Object { $_.Extent.EndOffset -lt $cursorPosition -or
            ($_.Extent.EndOffset -eq $cursorPosition -and $wordToComplete -eq '') } |
        ForEach-Object { if ($_ -is [System.Management.Automation.Language.StringConstantExpressionAst]) {
            $_.Value } else { $_.ToString() } })
    $unfinished = $wordToComplete.Trim('"', "'")
    $env:_SORA_COMPLETE = "=$unfinished"
    try {
        & $commandAst.CommandElements[0].ToString() @words 2>$null | ForEach-Object {
            $value, $help = $_ -split "`t", 2
            if (-not $help) { $help = $value }
            $shown = if ($value -match '\s') { "'$value'" } else { $value }
            [System.Management.Automation.CompletionResult]::new($shown, $value, 'ParameterValue', $help)
        }
    } finally {
        Remove-Item Env:_SORA_COMPLETE -ErrorAction SilentlyContinue
    }
}
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH, "powershell": POWERSHELL}
FILE_NAMES = {"bash": "sora.bash", "zsh": "_sora", "fish": "sora.fish", "powershell": "sora.ps1"}
