# bash completion for sora, made by `sora completion bash`
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
