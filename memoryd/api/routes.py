"""Every route, on one page."""

from functools import partial

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
    document_bodies,
    documents,
    errors,
    facets,
    generations,
    health,
    job_events,
    jobs,
    keys,
    llamacpp,
    localai,
    metrics,
    ndjson,
    observability,
    ollama,
    ollama_loading,
    ollama_models,
    ollama_pull,
    openai,
    openai_models,
    openapi,
    search,
    search_answers,
    search_bodies,
    stored_documents,
    tei,
    transfer,
    uploads,
    vector_stores,
)
from memoryd.api.fields import Numbers, Rows
from memoryd.api.ollama_requests import NamedModelBody
from memoryd.api.paging import PageQuery
from memoryd.api.queries import NoQuery, check_query_string
from memoryd.api.route import Dialect, Route, add_routes
from memoryd.api.state import MEMORY
from memoryd.memory.state import Memory

# memoryd's own routes check their query string; those of peers ignore what they don't know.
_own = partial(Route, query=NoQuery)
_ollama = partial(Route, dialect=Dialect.OLLAMA)
_tei = partial(Route, dialect=Dialect.TEI)

_COLLECTION = "/v1/collections/{collection:[^/]+}"
_DOCUMENT = _COLLECTION + "/documents/{id:[^/]+}"
_JOB = "/v1/jobs/{id:[^/]+}"

# A table, which the formatter would make three times as long: a route's first line says where it
# is, who serves it and to whom, the next what goes in and what comes out.
# fmt: off
ROUTES = [
    # Operating
    Route("GET", "/", health.root, scope=None, content_type="text/plain"),
    Route("GET", "/health", health.alive, scope=None, answer=health.AliveAnswer),
    Route("GET", "/health/ready", health.ready, scope=None,
          answer=health.ReadyAnswer, other_answers=((503, health.ReadyAnswer),)),
    _own("GET", "/v1/limits", health.show_limits, answer=health.LimitsAnswer),
    _own("GET", "/metrics", metrics.show, content_type="text/plain"),
    _own("GET", "/openapi.json", openapi.show, answer=openapi.Json),
    _own("GET", "/docs", docs.show, content_type="text/html"),
    _own("GET", "/docs/start.js", docs.start, content_type="text/javascript"),
    _own("GET", "/docs/swagger-ui-bundle.js", docs.script, content_type="text/javascript"),
    _own("GET", "/docs/swagger-ui.css", docs.style, content_type="text/css"),

    # API keys
    _own("POST", "/v1/keys", keys.create, scope="admin",
         body=keys.KeyBody, answer=keys.KeyCreatedAnswer, status=201),
    _own("GET", "/v1/keys", keys.list_, scope="admin", query=PageQuery, answer=keys.KeysAnswer),
    _own("DELETE", "/v1/keys/{id:[^/]+}", keys.revoke, scope="admin",
         answer=keys.KeyRevokedAnswer),

    # Collections
    _own("POST", "/v1/collections", collections.create, scope="write",
         body=collections.CollectionBody, answer=collections.CollectionAnswer, status=201),
    _own("GET", "/v1/collections", collections.list_,
         query=PageQuery, answer=collections.CollectionsAnswer),
    _own("GET", _COLLECTION, collections.show, answer=collections.CollectionAnswer),
    _own("PATCH", _COLLECTION, collections.update, scope="write",
         body=collections.CollectionPatchBody, answer=collections.CollectionAnswer),
    _own("DELETE", _COLLECTION, collections.delete, scope="write",
         answer=collections.CollectionDeletedAnswer),
    _own("POST", _COLLECTION + "/aliases", collections.move_alias, scope="write",
         body=collections.AliasBody, answer=collections.CollectionAnswer),
    _own("POST", _COLLECTION + "/model", generations.change_model, scope="write",
         body=generations.ModelBody, answer=generations.ModelChangeAnswer, status=202),
    _own("POST", _COLLECTION + "/model/rollback", generations.roll_back, scope="write",
         answer=collections.CollectionAnswer),
    _own("DELETE", _COLLECTION + "/model/previous", generations.drop_previous, scope="write",
         answer=generations.GenerationDroppedAnswer),

    # Documents
    _own("POST", _COLLECTION + "/documents", documents.store, scope="write",
         query=documents.StoreQuery, request_headers=("If-Match", "Idempotency-Key"),
         body=document_bodies.DocumentBody | document_bodies.DocumentsBody,
         other_bodies=((ndjson.CONTENT_TYPES[0], documents.DocumentLines),
                       (uploads.CONTENT_TYPE, uploads.UploadForm)),
         answer=document_bodies.StoredAnswer, errors=(422,),
         other_answers=((202, document_bodies.StoredAnswer),)),
    _own("GET", _COLLECTION + "/documents", stored_documents.list_,
         query=stored_documents.DocumentsQuery, answer=stored_documents.DocumentsAnswer,
         errors=(413,)),
    _own("POST", _COLLECTION + "/documents/delete", stored_documents.delete_by_filter,
         scope="write", body=stored_documents.DocumentsDeleteBody,
         answer=stored_documents.DocumentsDeletedAnswer),
    _own("GET", _DOCUMENT, stored_documents.show, answer=stored_documents.DocumentWithTextAnswer),
    _own("GET", _DOCUMENT + "/chunks", stored_documents.list_chunks,
         query=PageQuery, answer=stored_documents.ChunksAnswer),
    _own("PATCH", _DOCUMENT, stored_documents.patch, scope="write",
         request_headers=("If-Match",), body=stored_documents.DocumentPatchBody,
         answer=stored_documents.DocumentAnswer),
    _own("DELETE", _DOCUMENT, stored_documents.delete, scope="write",
         request_headers=("If-Match",), answer=stored_documents.DocumentDeletedAnswer),

    # Export and import
    _own("GET", _COLLECTION + "/export", transfer.export,
         query=transfer.ExportQuery, content_type=ollama_pull.NDJSON, errors=(429,)),
    _own("POST", _COLLECTION + "/import", transfer.import_, scope="write",
         query=transfer.ImportQuery,
         other_bodies=((ndjson.CONTENT_TYPES[0], transfer.RecordLines),
                       (transfer.PARQUET, transfer.ParquetFile)),
         answer=transfer.ImportAnswer, other_answers=((202, transfer.ImportAnswer),)),

    # Jobs
    _own("GET", "/v1/jobs", jobs.list_,
         query=jobs.JobsQuery, answer=jobs.JobsAnswer, errors=(404,)),
    _own("GET", _JOB, jobs.show, answer=jobs.JobAnswer),
    _own("DELETE", _JOB, jobs.cancel, scope="write", answer=jobs.JobAnswer),
    _own("POST", _JOB + "/retry", jobs.retry, scope="write", answer=jobs.JobAnswer, status=202),
    _own("GET", _JOB + "/failures", jobs.list_failures,
         query=PageQuery, answer=jobs.FailuresAnswer),
    _own("GET", _JOB + "/events", job_events.stream, content_type=job_events.EVENT_STREAM),

    # Search
    _own("POST", _COLLECTION + "/search", search.search,
         body=search_bodies.SearchBody, answer=search_answers.SearchAnswer),
    _own("GET", _COLLECTION + "/search", search.search_by_query_string,
         query=search_bodies.SearchQuery, answer=search_answers.SearchAnswer, errors=(413, 501)),
    _own("POST", _COLLECTION + "/search/batch", search.search_batch,
         body=search_bodies.BatchBody, answer=search_answers.BatchAnswer),
    _own("POST", "/v1/search", search.search_several,
         body=search_bodies.SeveralBody, answer=search_answers.SeveralAnswer),
    _own("POST", _COLLECTION + "/count", facets.count,
         body=facets.CountBody, answer=facets.CountAnswer),
    _own("POST", _COLLECTION + "/facets", facets.show_facets,
         body=facets.FacetsBody, answer=facets.FacetsAnswer),

    # Ollama
    _ollama("POST", "/api/embed", ollama.embed, uses_model=True,
            body=ollama.EmbedBody, answer=ollama.EmbedAnswer),
    _ollama("POST", "/api/embeddings", ollama.embed_prompt, uses_model=True,
            body=ollama.EmbeddingsBody, answer=ollama.EmbeddingsAnswer),
    _ollama("POST", "/api/generate", ollama_loading.generate,
            body=ollama_loading.GenerateBody, answer=ollama_loading.GenerateAnswer),
    _ollama("POST", "/api/chat", ollama_loading.chat,
            body=ollama_loading.ChatBody, answer=ollama_loading.ChatAnswer),
    _ollama("GET", "/api/version", ollama_models.show_version, answer=ollama_models.VersionAnswer),
    _ollama("GET", "/api/tags", ollama_models.list_models, answer=ollama_models.ModelList),
    _ollama("GET", "/api/ps", ollama_models.list_running_models,
            answer=ollama_models.RunningModels),
    _ollama("POST", "/api/show", ollama_models.show_model,
            body=ollama_models.ShowBody, answer=ollama_models.ShowAnswer),
    _ollama("POST", "/api/pull", ollama_pull.pull, scope="admin",
            body=ollama_pull.PullBody, answer=ollama_pull.PullLine,
            other_content_types=(ollama_pull.NDJSON,)),
    _ollama("POST", "/api/copy", ollama_models.copy, scope="admin", body=ollama_models.CopyBody),
    _ollama("DELETE", "/api/delete", ollama_models.delete_model, scope="admin",
            body=NamedModelBody),

    # OpenAI
    *(Route("POST", path, openai.embeddings, uses_model=True,
            body=openai.EmbeddingsBody, answer=openai.EmbeddingList)
      for path in ("/v1/embeddings", "/openai/deployments/{model:[^/]+}/embeddings")),
    *(Route("GET", path, openai_models.list_models, answer=openai_models.ModelList)
      for path in ("/v1/models", "/models")),
    Route("GET", "/v1/models/{model:.+}", openai_models.show_model,
          answer=openai_models.ModelObject),
    Route("POST", "/v1/vector_stores/{collection:[^/]+}/search", vector_stores.search,
          body=vector_stores.SearchBody, answer=vector_stores.FoundPage),
    *(Route("POST", path, openai_models.refuse_generation, status=400)
      for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses")),

    # llama.cpp
    Route("POST", "/embedding", llamacpp.embedding, uses_model=True,
          body=llamacpp.EmbeddingBody, answer=list[llamacpp.EmbeddingItem]),
    Route("GET", "/props", llamacpp.show_props, answer=llamacpp.Props, errors=(404, 501)),
    Route("GET", "/v1/health", health.alive, scope=None, answer=health.AliveAnswer),

    # text-embeddings-inference
    _tei("POST", "/embed", tei.embed, uses_model=True, body=tei.EmbedBody, answer=list[Numbers]),
    _tei("POST", "/embed_all", tei.embed_all, uses_model=True,
         body=tei.EmbedAllBody, answer=list[Rows]),
    _tei("POST", "/embed_sparse", tei.embed_sparse, body=tei.EmbedAllBody),
    _tei("POST", "/similarity", tei.similarity, uses_model=True,
         body=tei.SimilarityBody, answer=Numbers),
    _tei("POST", "/decode", tei.decode, body=tei.DecodeBody, answer=list[str]),
    _tei("GET", "/info", tei.show_info, answer=tei.Info, errors=(404, 424, 501)),
    _tei("GET", "/api-doc/openapi.json", openapi.show, answer=openapi.Json),
    _tei("GET", "/ping", health.alive, scope=None, answer=health.AliveAnswer),

    # Several dialects, told apart by the body
    Route("POST", "/embeddings", dispatch.embeddings, uses_model=True,
          body=openai.EmbeddingsBody | llamacpp.EmbeddingBody,
          answer=openai.EmbeddingList | list[llamacpp.EmbeddingItem]),
    _tei("POST", "/", dispatch.root, uses_model=True,
         body=tei.EmbedBody | tei.SimilarityBody, answer=list[Numbers] | Numbers),
    *(Route("POST", path, dispatch.rerank, other_dialect=Dialect.TEI, uses_model=True,
            body=llamacpp.RerankBody | tei.RerankBody,
            answer=llamacpp.RerankAnswer | list[tei.Rank])
      for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")),
    *(Route("POST", path, dispatch.tokenize, other_dialect=Dialect.TEI,
            body=llamacpp.TokenizeBody | tei.TokenizeBody | aleph_alpha_tokens.TokenizeBody,
            answer=llamacpp.TokenizeAnswer
            | list[list[tei.SimpleToken]]
            | aleph_alpha_tokens.TokenizeAnswer)
      for path in ("/tokenize", "/v1/tokenize")),
    *(Route("POST", path, dispatch.detokenize,
            body=llamacpp.DetokenizeBody | aleph_alpha_tokens.DetokenizeBody,
            answer=llamacpp.DetokenizeAnswer | aleph_alpha_tokens.DetokenizeAnswer)
      for path in ("/detokenize", "/v1/detokenize")),

    # LocalAI
    Route("POST", "/v1/engines/{model:.+}/embeddings", openai.embeddings, uses_model=True,
          body=openai.EmbeddingsBody, answer=openai.EmbeddingList),
    Route("GET", "/models/available", localai.list_available, answer=list[localai.AvailableModel]),
    Route("POST", "/models/apply", localai.apply, scope="admin",
          body=localai.ApplyBody, answer=localai.JobStarted),
    Route("GET", "/models/jobs", localai.list_jobs, answer=dict[str, localai.JobStatus]),
    Route("GET", "/models/jobs/{uuid}", localai.show_job, answer=localai.JobStatus),
    Route("POST", "/models/delete/{name:.+}", localai.delete, scope="admin",
          answer=localai.JobStarted),

    # Aleph Alpha: its client's host ends in /v1, or doesn't
    *(route for prefix in ("", "/v1") for route in (
        Route("GET", prefix + "/version", aleph_alpha.version, content_type="text/plain"),
        Route("GET", prefix + "/models_available", aleph_alpha.list_models,
              answer=list[aleph_alpha.ModelSettings]),
        Route("POST", prefix + "/semantic_embed", aleph_alpha.semantic_embed, uses_model=True,
              body=aleph_alpha.SemanticEmbedBody, answer=aleph_alpha.EmbeddingAnswer),
        Route("POST", prefix + "/batch_semantic_embed", aleph_alpha.batch_semantic_embed,
              uses_model=True,
              body=aleph_alpha.BatchSemanticEmbedBody, answer=aleph_alpha.EmbeddingsAnswer),
        Route("POST", prefix + "/instructable_embed", aleph_alpha.instructable_embed,
              uses_model=True,
              body=aleph_alpha.InstructableEmbedBody, answer=aleph_alpha.EmbeddingAnswer),
    )),
]

# What the port of the metrics serves.
METRICS_ROUTES = [
    _own("GET", "/metrics", metrics.show, scope=None, content_type="text/plain"),
    Route("GET", "/health", health.alive, scope=None, answer=health.AliveAnswer),
]
# fmt: on

_OPENAPI = openapi.Document(ROUTES)


def build_app(memory: Memory, routes: list[Route] = ROUTES) -> web.Application:
    """Return the HTTP application over `memory`."""
    settings = memory.settings
    middlewares = [
        observability.observe,
        compression.compress,
        errors.answer_errors,
        cors.answer_preflight,
        access.check_access,
        check_query_string,
    ]
    app = web.Application(middlewares=middlewares, client_max_size=settings.max_body_bytes)
    app[MEMORY] = memory
    app[openapi.DOCUMENT] = _OPENAPI
    app[cors.ORIGINS] = origins = cors.Origins(settings.cors_origins)
    app.on_response_prepare.append(observability.add_request_id)
    app.on_response_prepare.append(origins.add_headers)
    add_routes(app, routes)
    return app
