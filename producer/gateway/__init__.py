"""The HTTP gateway: jobs from any language, over HTTP. Started by ``aii serve``; needs the extra `gateway`.

app            the application: routes, error answers, health, metrics
tokens         bearer tokens, of which only digests are kept; access: scopes, collections and rates of a request
quotas         how many jobs of a token may be open
bodies         a submission's image and parameters, from a raw body, a form or JSON; parts: forms as a stream
uploads        a stream into S3, under the digest of its bytes; fetch: the same from a URL, with a guard
deadlines      streams that must end in time
submissions    POST /v1/activations, /v1/queries; jobs, assets, takedowns, notifications: the other routes
soft_bindings  C2PA's Soft Binding Resolution API
problems       errors as problem documents (RFC 9457)
"""
