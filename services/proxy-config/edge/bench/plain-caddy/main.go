// Plain-caddy is what slipway-edge is measured beside: Caddy of the same version
// with its own reverse proxy and one route. It serves until it is interrupted.
//
//	plain-caddy <listen host:port> <upstream host:port>
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/caddyserver/caddy/v2"
	_ "github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

type object = map[string]any

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "plain-caddy:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("wants the address to listen on and the upstream's, got %q", args)
	}
	config, err := json.Marshal(object{
		"admin":   object{"disabled": true, "config": object{"persist": false}},
		"logging": object{"logs": object{"default": object{"level": "ERROR"}}},
		"apps": object{"http": object{"servers": object{"plain": object{
			"listen":          []string{args[0]},
			"protocols":       []string{"h1"},
			"automatic_https": object{"disable": true},
			"routes": []object{{"handle": []object{{
				"handler":   "reverse_proxy",
				"upstreams": []object{{"dial": args[1]}},
				"transport": object{"protocol": "http", "keep_alive": object{"max_idle_conns_per_host": 256}},
			}}}},
		}}}},
	})
	if err != nil {
		return fmt.Errorf("encoding Caddy's configuration: %w", err)
	}
	if err := caddy.Load(config, true); err != nil {
		return fmt.Errorf("starting Caddy: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
	if err := caddy.Stop(); err != nil {
		return fmt.Errorf("stopping Caddy: %w", err)
	}
	return nil
}
