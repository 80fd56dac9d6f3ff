package cli

import "github.com/spf13/cobra"

// admin are the commands of those who run the platform.
func (c *command) admin() *cobra.Command {
	admin := &cobra.Command{
		Use: "admin", Short: "Run the platform itself; needs the scope admin", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	admin.AddCommand(c.nodes(), c.rebuild(), c.deadLetters(), c.keys(), c.dns())
	admin.AddCommand(backupCommands(c)...)
	return admin
}
