"""Routes of the pages of this app."""

from django.urls import URLPattern, path

from gateway_admin.catalog.views import (
    chains,
    credentials,
    deployments,
    environments,
    models,
    providers,
)

app_name = "catalog"
urlpatterns: list[URLPattern] = [
    path("environments/", environments.environment_list, name="environment-list"),
    path("environments/new/", environments.environment_create, name="environment-create"),
    path("environments/<slug:slug>/", environments.environment_edit, name="environment-edit"),
    path(
        "environments/<slug:slug>/delete/",
        environments.environment_delete,
        name="environment-delete",
    ),
    path("providers/", providers.provider_list, name="provider-list"),
    path("providers/new/", providers.provider_choose, name="provider-choose"),
    path("providers/new/<slug:kind>/", providers.provider_create, name="provider-create"),
    path("providers/<slug:slug>/", providers.provider_detail, name="provider-detail"),
    path("providers/<slug:slug>/delete/", providers.provider_delete, name="provider-delete"),
    path("credentials/", credentials.credential_list, name="credential-list"),
    path("credentials/new/", credentials.credential_choose, name="credential-choose"),
    path(
        "credentials/new/<slug:provider>/", credentials.credential_create, name="credential-create"
    ),
    path("credentials/<uuid:pk>/", credentials.credential_detail, name="credential-detail"),
    path("credentials/<uuid:pk>/edit/", credentials.credential_edit, name="credential-edit"),
    path(
        "credentials/<uuid:pk>/secret/", credentials.credential_replace, name="credential-replace"
    ),
    path("credentials/<uuid:pk>/enable/", credentials.credential_enable, name="credential-enable"),
    path("credentials/<uuid:pk>/delete/", credentials.credential_delete, name="credential-delete"),
    path("models/", models.model_list, name="model-list"),
    path("models/new/", models.model_create, name="model-create"),
    path("models/<uuid:pk>/", models.model_detail, name="model-detail"),
    path("models/<uuid:pk>/edit/", models.model_edit, name="model-edit"),
    path("models/<uuid:pk>/delete/", models.model_delete, name="model-delete"),
    path("aliases/", models.alias_list, name="alias-list"),
    path("aliases/new/", models.alias_create, name="alias-create"),
    path("aliases/<uuid:pk>/", models.alias_edit, name="alias-edit"),
    path("aliases/<uuid:pk>/delete/", models.alias_delete, name="alias-delete"),
    path("deployments/", deployments.deployment_list, name="deployment-list"),
    path("deployments/new/", deployments.deployment_create, name="deployment-create"),
    path("deployments/form/", deployments.deployment_form_part, name="deployment-form-part"),
    path("deployments/<uuid:pk>/", deployments.deployment_detail, name="deployment-detail"),
    path("deployments/<uuid:pk>/edit/", deployments.deployment_edit, name="deployment-edit"),
    path("deployments/<uuid:pk>/test/", deployments.deployment_test, name="deployment-test"),
    path(
        "deployments/<uuid:pk>/test/state/",
        deployments.deployment_test_state,
        name="deployment-test-state",
    ),
    path("deployments/<uuid:pk>/enable/", deployments.deployment_enable, name="deployment-enable"),
    path(
        "deployments/<uuid:pk>/book-price/",
        deployments.deployment_use_book_price,
        name="deployment-book-price",
    ),
    path("deployments/<uuid:pk>/clone/", deployments.deployment_clone, name="deployment-clone"),
    path("deployments/<uuid:pk>/delete/", deployments.deployment_delete, name="deployment-delete"),
    path("chains/", chains.chain_list, name="chain-list"),
    path("chains/new/", chains.chain_create, name="chain-create"),
    path("chains/<uuid:pk>/", chains.chain_edit, name="chain-edit"),
    path("chains/<uuid:pk>/delete/", chains.chain_delete, name="chain-delete"),
]
