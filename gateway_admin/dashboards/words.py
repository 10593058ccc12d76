"""What the ledger's terms mean, in plain words."""

WHY_WORDS = {
    "first": "It was chosen among the deployments of the requested model.",
    "retry": "An earlier attempt failed in a way that is worth trying again.",
    "fallback": "The requested model failed; its fallback chain names this one next.",
    "context_window": "The input was too long for the requested model; its chain names this one.",
    "content_policy": "The first provider refused the content; the model's chain names this one.",
    "cache": "The answer was in the cache; no provider was called.",
}
ERROR_WORDS = {
    "authentication": ("The provider did not accept our credential.",
                       "Replace the credential's secret and test the deployment."),
    "permission": ("The key may not use this model or route.",
                   "Allow the model on the key, or ask for one that it may use."),
    "not_found": ("There is no such model, or the provider does not know the deployment.",
                  "Check the model's name and the deployment's upstream name."),
    "invalid_request": ("The request itself was refused.",
                        "The caller must change it: see the provider's words."),
    "context_window": ("The input is longer than the model takes.",
                       "Shorten it, or add a context-window chain to a longer model."),
    "content_policy": ("The provider's content policy refused the request.",
                       "Add a content-policy chain, or change the prompt."),
    "rate_limit": ("A rate limit was reached.",
                   "Spread the calls, raise the limit, or add a deployment."),
    "quota": ("A budget or the provider account's quota is used up.",
              "Raise it, or wait until it starts anew."),
    "budget": ("A budget had not enough left for what the request might cost.",
               "Wait until its period ends, raise it, or give it a temporary override."),
    "circuit_open": ("The breakers keep every deployment out that could have served.",
                     "They try again by themselves; see the deployments' pages."),
    "overloaded": ("The provider was overloaded.",
                   "It passes by itself; a fallback chain hides it from callers."),
    "timeout": ("The provider did not answer in time.",
                "Raise the time-out, or add a faster deployment."),
    "connection": ("The provider could not be reached.",
                   "Check its address, and the network of the replicas."),
    "server_error": ("The provider failed.", "It passes by itself; a fallback chain hides it."),
    "cut_stream": ("The stream ended before its last event.",
                   "What was produced is charged; the caller should try again."),
    "client_abort": ("The client closed the connection before the end.",
                     "What was produced until then is charged."),
    "internal": ("The gateway itself failed.", "See the replica's log at this time."),
}  # fmt: skip
ABANDONED_WORDS = (
    "The gateway's process ended before this request did.",
    "What was produced is not known. It is booked at what its input costs at least, and what it "
    "had reserved beyond that is free again.",
)
ADMISSION_WORDS = {
    "shared": "in the shared counters, before the call",
    "local": "by its worker alone, because the shared counters were out of reach; "
    "they have learned of it since",
    "none": "by no budget",
}
UNIT_WORDS = {
    "input_token": "Input tokens",
    "cache_read_token": "Input tokens read from cache",
    "cache_write_token": "Input tokens written to cache",
    "input_audio_token": "Audio input tokens",
    "output_token": "Output tokens",
    "reasoning_token": "Reasoning tokens",
    "output_audio_token": "Audio output tokens",
    "image": "Images",
    "input_second": "Seconds of input",
    "output_second": "Seconds of output",
    "input_character": "Characters",
    "query": "Queries",
    "request": "Request",
}
