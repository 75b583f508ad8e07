from examples.interaction.run import main

main()
