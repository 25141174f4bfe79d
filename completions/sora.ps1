# PowerShell completion for sora, made by `sora completion powershell`
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
