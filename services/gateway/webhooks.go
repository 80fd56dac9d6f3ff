package gateway

import (
	"context"
	"log/slog"

	webhooksv1 "github.com/slipway-paas/slipway/gen/slipway/webhooks/v1"
)

// webhookServer passes on what is done with webhooks.
type webhookServer struct {
	webhooksv1.UnimplementedWebhookServiceServer
	webhooks webhooksv1.WebhookServiceClient
	log      *slog.Logger
}

func (s *webhookServer) CreateWebhook(ctx context.Context, in *webhooksv1.CreateWebhookRequest) (*webhooksv1.CreateWebhookResponse, error) {
	return relay(ctx, s.log, "create a webhook", s.webhooks.CreateWebhook, in)
}

func (s *webhookServer) ListWebhooks(ctx context.Context, in *webhooksv1.ListWebhooksRequest) (*webhooksv1.ListWebhooksResponse, error) {
	return relay(ctx, s.log, "list webhooks", s.webhooks.ListWebhooks, in)
}

func (s *webhookServer) GetWebhook(ctx context.Context, in *webhooksv1.GetWebhookRequest) (*webhooksv1.GetWebhookResponse, error) {
	return relay(ctx, s.log, "show a webhook", s.webhooks.GetWebhook, in)
}

func (s *webhookServer) UpdateWebhook(ctx context.Context, in *webhooksv1.UpdateWebhookRequest) (*webhooksv1.UpdateWebhookResponse, error) {
	return relay(ctx, s.log, "change a webhook", s.webhooks.UpdateWebhook, in)
}

func (s *webhookServer) TestWebhook(ctx context.Context, in *webhooksv1.TestWebhookRequest) (*webhooksv1.TestWebhookResponse, error) {
	return relay(ctx, s.log, "test a webhook", s.webhooks.TestWebhook, in)
}

func (s *webhookServer) DeleteWebhook(ctx context.Context, in *webhooksv1.DeleteWebhookRequest) (*webhooksv1.DeleteWebhookResponse, error) {
	return relay(ctx, s.log, "delete a webhook", s.webhooks.DeleteWebhook, in)
}

func (s *webhookServer) RotateWebhookSecret(ctx context.Context, in *webhooksv1.RotateWebhookSecretRequest) (*webhooksv1.RotateWebhookSecretResponse, error) {
	return relay(ctx, s.log, "rotate a webhook's secret", s.webhooks.RotateWebhookSecret, in)
}

func (s *webhookServer) EnableWebhook(ctx context.Context, in *webhooksv1.EnableWebhookRequest) (*webhooksv1.EnableWebhookResponse, error) {
	return relay(ctx, s.log, "enable a webhook", s.webhooks.EnableWebhook, in)
}

func (s *webhookServer) ListWebhookDeliveries(ctx context.Context, in *webhooksv1.ListWebhookDeliveriesRequest) (*webhooksv1.ListWebhookDeliveriesResponse, error) {
	return relay(ctx, s.log, "list a webhook's deliveries", s.webhooks.ListWebhookDeliveries, in)
}

func (s *webhookServer) ReplayWebhook(ctx context.Context, in *webhooksv1.ReplayWebhookRequest) (*webhooksv1.ReplayWebhookResponse, error) {
	return relay(ctx, s.log, "replay a webhook's deliveries", s.webhooks.ReplayWebhook, in)
}
