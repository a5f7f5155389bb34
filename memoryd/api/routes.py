"""Every route, on one page."""

from aiohttp import web

from memoryd.api import (
    access,
    aleph_alpha,
    aleph_alpha_tokens,
    collections,
    compression,
    cors,
    dispatch,
    docs,
    documents,
    errors,
    health,
    keys,
    llamacpp,
    localai,
    metrics,
    ollama,
    ollama_loading,
    ollama_models,
    ollama_pull,
    openai,
    openai_models,
    openapi,
    search,
    tei,
    vector_stores,
)
from memoryd.api.fields import Numbers
from memoryd.api.inputs import Rows
from memoryd.api.ollama_requests import NamedModelBody
from memoryd.api.paging import PageQuery
from memoryd.api.queries import NoQuery, check_query_string
from memoryd.api.route import Dialect, Route, Scope, add_routes
from memoryd.api.state import MEMORY
from memoryd.memory.keys import Keyring
from memoryd.memory.state import Memory

_COLLECTION = "/v1/collections/{collection:[^/]+}"
_DOCUMENT = _COLLECTION + "/documents/{id:[^/]+}"

ROUTES = [
    # Operating
    Route("GET", "/", health.root, scope=None, content_type="text/plain"),
    Route("GET", "/health", health.alive, scope=None, answer=health.AliveAnswer),
    Route(
        "GET",
        "/health/ready",
        health.ready,
        scope=None,
        answer=health.ReadyAnswer,
        other_answers=((503, health.ReadyAnswer),),
    ),
    Route("GET", "/v1/limits", health.show_limits, query=NoQuery, answer=health.LimitsAnswer),
    Route("GET", "/metrics", metrics.show, query=NoQuery, content_type="text/plain"),
    Route("GET", "/openapi.json", openapi.show, query=NoQuery, answer=openapi.Json),
    Route("GET", "/docs", docs.show, query=NoQuery, content_type="text/html"),
    Route("GET", "/docs/start.js", docs.start, query=NoQuery, content_type="text/javascript"),
    Route(
        "GET",
        "/docs/swagger-ui-bundle.js",
        docs.script,
        query=NoQuery,
        content_type="text/javascript",
    ),
    Route("GET", "/docs/swagger-ui.css", docs.style, query=NoQuery, content_type="text/css"),
    # API keys
    Route(
        "POST",
        "/v1/keys",
        keys.create,
        scope=Scope.ADMIN,
        query=NoQuery,
        body=keys.KeyBody,
        answer=keys.KeyCreatedAnswer,
        status=201,
    ),
    Route(
        "GET",
        "/v1/keys",
        keys.list_,
        scope=Scope.ADMIN,
        query=PageQuery,
        answer=keys.KeysAnswer,
    ),
    Route(
        "DELETE",
        "/v1/keys/{id:[^/]+}",
        keys.revoke,
        scope=Scope.ADMIN,
        query=NoQuery,
        answer=keys.KeyRevokedAnswer,
    ),
    # Collections
    Route(
        "POST",
        "/v1/collections",
        collections.create,
        scope=Scope.WRITE,
        query=NoQuery,
        body=collections.CollectionBody,
        answer=collections.CollectionAnswer,
        status=201,
    ),
    Route(
        "GET",
        "/v1/collections",
        collections.list_,
        query=PageQuery,
        answer=collections.CollectionsAnswer,
    ),
    Route(
        "GET",
        _COLLECTION,
        collections.show,
        query=NoQuery,
        answer=collections.CollectionAnswer,
    ),
    Route(
        "PATCH",
        _COLLECTION,
        collections.update,
        scope=Scope.WRITE,
        query=NoQuery,
        body=collections.CollectionPatchBody,
        answer=collections.CollectionAnswer,
    ),
    Route(
        "DELETE",
        _COLLECTION,
        collections.delete,
        scope=Scope.WRITE,
        query=NoQuery,
        answer=collections.CollectionDeletedAnswer,
    ),
    Route(
        "POST",
        _COLLECTION + "/aliases",
        collections.move_alias,
        scope=Scope.WRITE,
        query=NoQuery,
        body=collections.AliasBody,
        answer=collections.CollectionAnswer,
    ),
    # Documents
    Route(
        "POST",
        _COLLECTION + "/documents",
        documents.store,
        scope=Scope.WRITE,
        query=documents.StoreQuery,
        body=documents.DocumentBody | documents.DocumentsBody,
        answer=documents.StoredAnswer,
        request_headers=("If-Match",),
    ),
    Route(
        "GET",
        _COLLECTION + "/documents",
        documents.list_,
        query=PageQuery,
        answer=documents.DocumentsAnswer,
    ),
    Route(
        "GET",
        _DOCUMENT,
        documents.show,
        query=NoQuery,
        answer=documents.DocumentWithTextAnswer,
    ),
    Route(
        "GET",
        _DOCUMENT + "/chunks",
        documents.list_chunks,
        query=PageQuery,
        answer=documents.ChunksAnswer,
    ),
    Route(
        "DELETE",
        _DOCUMENT,
        documents.delete,
        scope=Scope.WRITE,
        query=NoQuery,
        answer=documents.DocumentDeletedAnswer,
        request_headers=("If-Match",),
    ),
    # Search
    Route(
        "POST",
        _COLLECTION + "/search",
        search.search,
        query=NoQuery,
        body=search.SearchBody,
        answer=search.SearchAnswer,
    ),
    Route(
        "GET",
        _COLLECTION + "/search",
        search.search_by_query_string,
        query=search.SearchQuery,
        answer=search.SearchAnswer,
        errors=(413, 501),
    ),
    # Ollama
    Route(
        "POST",
        "/api/embed",
        ollama.embed,
        Dialect.OLLAMA,
        body=ollama.EmbedBody,
        answer=ollama.EmbedAnswer,
        uses_model=True,
    ),
    Route(
        "POST",
        "/api/embeddings",
        ollama.embed_prompt,
        Dialect.OLLAMA,
        body=ollama.EmbeddingsBody,
        answer=ollama.EmbeddingsAnswer,
        uses_model=True,
    ),
    Route(
        "POST",
        "/api/generate",
        ollama_loading.generate,
        Dialect.OLLAMA,
        body=ollama_loading.GenerateBody,
        answer=ollama_loading.GenerateAnswer,
    ),
    Route(
        "POST",
        "/api/chat",
        ollama_loading.chat,
        Dialect.OLLAMA,
        body=ollama_loading.ChatBody,
        answer=ollama_loading.ChatAnswer,
    ),
    Route(
        "GET",
        "/api/version",
        ollama_models.show_version,
        Dialect.OLLAMA,
        answer=ollama_models.VersionAnswer,
    ),
    Route(
        "GET",
        "/api/tags",
        ollama_models.list_models,
        Dialect.OLLAMA,
        answer=ollama_models.ModelList,
    ),
    Route(
        "GET",
        "/api/ps",
        ollama_models.list_running_models,
        Dialect.OLLAMA,
        answer=ollama_models.RunningModels,
    ),
    Route(
        "POST",
        "/api/show",
        ollama_models.show_model,
        Dialect.OLLAMA,
        body=ollama_models.ShowBody,
        answer=ollama_models.ShowAnswer,
    ),
    Route(
        "POST",
        "/api/pull",
        ollama_pull.pull,
        Dialect.OLLAMA,
        scope=Scope.ADMIN,
        body=ollama_pull.PullBody,
        answer=ollama_pull.PullLine,
    ),
    Route(
        "POST",
        "/api/copy",
        ollama_models.copy,
        Dialect.OLLAMA,
        scope=Scope.ADMIN,
        body=ollama_models.CopyBody,
    ),
    Route(
        "DELETE",
        "/api/delete",
        ollama_models.delete_model,
        Dialect.OLLAMA,
        scope=Scope.ADMIN,
        body=NamedModelBody,
    ),
    # OpenAI
    *(
        Route(
            "POST",
            path,
            openai.embeddings,
            body=openai.EmbeddingsBody,
            answer=openai.EmbeddingList,
            uses_model=True,
        )
        for path in ("/v1/embeddings", "/openai/deployments/{model:[^/]+}/embeddings")
    ),
    Route("GET", "/v1/models", openai_models.list_models, answer=openai_models.ModelList),
    Route(
        "GET", "/v1/models/{model:.+}", openai_models.show_model, answer=openai_models.ModelObject
    ),
    Route(
        "POST",
        "/v1/vector_stores/{collection:[^/]+}/search",
        vector_stores.search,
        body=vector_stores.SearchBody,
        answer=vector_stores.FoundPage,
    ),
    *(
        Route("POST", path, openai_models.refuse_generation, status=400)
        for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses")
    ),
    # llama.cpp
    Route(
        "POST",
        "/embedding",
        llamacpp.embedding,
        body=llamacpp.EmbeddingBody,
        answer=list[llamacpp.EmbeddingItem],
        uses_model=True,
    ),
    Route("GET", "/props", llamacpp.show_props, answer=llamacpp.Props, errors=(404, 501)),
    Route("GET", "/v1/health", health.alive, scope=None, answer=health.AliveAnswer),
    # text-embeddings-inference
    Route(
        "POST",
        "/embed",
        tei.embed,
        Dialect.TEI,
        body=tei.EmbedBody,
        answer=list[Numbers],
        uses_model=True,
    ),
    Route(
        "POST",
        "/embed_all",
        tei.embed_all,
        Dialect.TEI,
        body=tei.EmbedAllBody,
        answer=list[Rows],
        uses_model=True,
    ),
    Route("POST", "/embed_sparse", tei.embed_sparse, Dialect.TEI, body=tei.EmbedAllBody),
    Route(
        "POST",
        "/similarity",
        tei.similarity,
        Dialect.TEI,
        body=tei.SimilarityBody,
        answer=Numbers,
        uses_model=True,
    ),
    Route("POST", "/decode", tei.decode, Dialect.TEI, body=tei.DecodeBody, answer=list[str]),
    Route("GET", "/info", tei.show_info, Dialect.TEI, answer=tei.Info, errors=(404, 424, 501)),
    Route("GET", "/ping", health.alive, Dialect.TEI, scope=None, answer=health.AliveAnswer),
    # Several dialects, told apart by the body
    Route(
        "POST",
        "/embeddings",
        dispatch.embeddings,
        body=openai.EmbeddingsBody | llamacpp.EmbeddingBody,
        answer=openai.EmbeddingList | list[llamacpp.EmbeddingItem],
        uses_model=True,
    ),
    Route(
        "POST",
        "/",
        dispatch.root,
        Dialect.TEI,
        body=tei.EmbedBody | tei.SimilarityBody,
        answer=list[Numbers] | Numbers,
        uses_model=True,
    ),
    *(
        Route(
            "POST",
            path,
            dispatch.rerank,
            body=llamacpp.RerankBody | tei.RerankBody,
            answer=llamacpp.RerankAnswer | list[tei.Rank],
            other_dialect=Dialect.TEI,
            uses_model=True,
        )
        for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")
    ),
    *(
        Route(
            "POST",
            path,
            dispatch.tokenize,
            body=llamacpp.TokenizeBody | tei.TokenizeBody | aleph_alpha_tokens.TokenizeBody,
            answer=llamacpp.TokenizeAnswer
            | list[list[tei.SimpleToken]]
            | aleph_alpha_tokens.TokenizeAnswer,
            other_dialect=Dialect.TEI,
        )
        for path in ("/tokenize", "/v1/tokenize")
    ),
    *(
        Route(
            "POST",
            path,
            dispatch.detokenize,
            body=llamacpp.DetokenizeBody | aleph_alpha_tokens.DetokenizeBody,
            answer=llamacpp.DetokenizeAnswer | aleph_alpha_tokens.DetokenizeAnswer,
        )
        for path in ("/detokenize", "/v1/detokenize")
    ),
    # LocalAI
    Route(
        "POST",
        "/v1/engines/{model:.+}/embeddings",
        openai.embeddings,
        body=openai.EmbeddingsBody,
        answer=openai.EmbeddingList,
        uses_model=True,
    ),
    Route("GET", "/models/available", localai.list_available, answer=list[localai.AvailableModel]),
    Route(
        "POST",
        "/models/apply",
        localai.apply,
        scope=Scope.ADMIN,
        body=localai.ApplyBody,
        answer=localai.JobStarted,
    ),
    Route("GET", "/models/jobs", localai.list_jobs, answer=dict[str, localai.JobStatus]),
    Route("GET", "/models/jobs/{uuid}", localai.show_job, answer=localai.JobStatus),
    Route(
        "POST",
        "/models/delete/{name:.+}",
        localai.delete,
        scope=Scope.ADMIN,
        answer=localai.JobStarted,
    ),
    # Aleph Alpha: its client's host ends in /v1, or doesn't
    *(
        route
        for prefix in ("", "/v1")
        for route in (
            Route("GET", f"{prefix}/version", aleph_alpha.version, content_type="text/plain"),
            Route(
                "GET",
                f"{prefix}/models_available",
                aleph_alpha.list_models,
                answer=list[aleph_alpha.ModelSettings],
            ),
            Route(
                "POST",
                f"{prefix}/semantic_embed",
                aleph_alpha.semantic_embed,
                body=aleph_alpha.SemanticEmbedBody,
                answer=aleph_alpha.EmbeddingAnswer,
                uses_model=True,
            ),
            Route(
                "POST",
                f"{prefix}/batch_semantic_embed",
                aleph_alpha.batch_semantic_embed,
                body=aleph_alpha.BatchSemanticEmbedBody,
                answer=aleph_alpha.EmbeddingsAnswer,
                uses_model=True,
            ),
            Route(
                "POST",
                f"{prefix}/instructable_embed",
                aleph_alpha.instructable_embed,
                body=aleph_alpha.InstructableEmbedBody,
                answer=aleph_alpha.EmbeddingAnswer,
                uses_model=True,
            ),
        )
    ),
]


# What the port of the metrics serves.
METRICS_ROUTES = [
    Route("GET", "/metrics", metrics.show, scope=None, query=NoQuery, content_type="text/plain"),
    Route("GET", "/health", health.alive, scope=None, answer=health.AliveAnswer),
]

_OPENAPI = openapi.Document(ROUTES)


def build_app(memory: Memory, routes: list[Route] = ROUTES) -> web.Application:
    """Return the HTTP application over `memory`."""
    settings = memory.settings
    middlewares = [
        metrics.count_request,
        compression.compress,
        access.note_request,
        errors.answer_errors,
        cors.answer_preflight,
        access.check_access,
        check_query_string,
    ]
    app = web.Application(middlewares=middlewares, client_max_size=settings.max_body_bytes)
    app[MEMORY] = memory
    app[openapi.DOCUMENT] = _OPENAPI
    app[access.KEYS] = Keyring(settings, memory.database)
    app[cors.ORIGINS] = origins = cors.Origins(settings.cors_origins)
    app.on_response_prepare.append(access.add_request_id)
    app.on_response_prepare.append(origins.add_headers)
    add_routes(app, routes)
    return app
