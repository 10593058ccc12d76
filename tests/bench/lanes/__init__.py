"""What a request costs on its way through a gateway: ours, LiteLLM, Portkey, and none.

    make bench                                  everything, some 25 minutes on two cores
    python -m tests.bench.lanes --quick         what the bounds need, four minutes
    python -m tests.bench.lanes --only plain --variants mock,direct,tuned

One gateway works at a time, alone on one core. The mock provider, the load, Valkey and the
control plane's stand-in share the others. The variants run in turn (A B C A B C), and what
is told is the median over the rounds and its ratio to another variant of the same run:
figures of two runs or of two machines must not be compared.

    mock         the load straight at the provider: the limit of what can be measured
    litellm      LiteLLM as installed: its own command, its default settings, h11
    tuned        LiteLLM with httptools, a frozen heap, errors only in its log, no pages
    lane         ours, the model told to stay on LiteLLM's lane
    direct       ours, the direct lane
    hit          ours, answers kept before
    unknown      ours, a key that nobody knows
    broke        ours, a key whose budget is spent
    portkey      @portkey-ai/gateway from npm, without keys, limits, cost or events

`lane`, `direct`, `hit` and `broke` have every rule on: requests, tokens and parallel calls
limited for key and team, budgets of key, team and environment in a real Valkey, events
through the spool to the control plane, metrics.

modules
    answers      what clients ask and what the provider answers
    mock         the provider
    machine      cores, processes, their CPU time and memory
    control      a server that only computes, to compare tails with
    wrk, pace    load without a pause, and load at a fixed rate
    ours, rivals gateways and how to start them
    variants     which of them are measured, and how they are called
    verify       bodies compared, events counted
    matrix       which combinations are measured
    measure      the rounds
    bounds       what must hold
    report       tables, the chart, docs/performance.md

It needs wrk (`apt-get install wrk`) and two cores; npm for Portkey, which is left out where
npm is not installed. The exit status is 1 when a body was wrong, a request failed, an event
was lost or a bound was missed.
"""
