"""The table of the full world: 17 categories ([B] Table 3), 170 everyday objects, yes/no attributes.

An object has its category's attributes, plus those named after it, minus those with a `-`. A name may be followed by
variants (`/`); a leading `+` marks plurals ("Are they boots?"), `~` words without an article ("Is it spinach?").
"""

# attribute: the usual wording | paraphrases
ATTRIBUTES = """
pocket: Does it fit in a pocket? | Is it small enough for a pocket?
onehand: Can you carry it in one hand? | Is it easy to carry?
person: Is it bigger than a person? | Is it larger than a person?
house: Is it bigger than a house? | Is it huge?
heavy: Is it heavy? | Does it weigh a lot?
long: Is it long and thin? | Is it a long thin object?
round: Is it round? | Does it have a round shape?
flat: Is it flat? | Is it a flat object?
hollow: Is it hollow? | Is it empty inside?
point: Does it have a point? | Is it pointed?
pair: Does it come in pairs? | Are there usually two of them?
metal: Is it made mostly of metal? | Is it metal?
metalparts: Does it have metal in it? | Does it contain metal?
wood: Is it often made of wood? | Is it wooden?
plastic: Is it often made of plastic? | Is it plastic?
cloth: Is it made of cloth? | Is it made of fabric?
leather: Is it often made of leather? | Is it leather?
glass: Does it have glass in it? | Does it contain glass?
paper: Is it made of paper? | Is there paper in it?
rubber: Does it have rubber in it? | Is it made of rubber?
clay: Is it often made of stone or clay? | Does it contain stone or clay?
soft: Is it soft? | Does it feel soft?
shiny: Is it shiny? | Does it shine?
fragile: Does it break easily? | Is it fragile?
alive: Is it alive? | Is it a living thing?
grows: Does it grow? | Does it get bigger by itself?
legs: Does it have legs? | Does it stand on legs?
fur: Does it have fur? | Is it furry?
tail: Does it have a tail?
wild: Does it live in the wild? | Is it a wild animal?
pet: Is it kept as a pet? | Do people keep it at home as a pet?
meat: Does it eat meat? | Is it a predator?
ridden: Do people ride it? | Can you ride it?
wings: Does it have wings?
swims: Can it swim or float? | Does it float?
danger: Is it dangerous? | Can it hurt you?
farm: Is it found on a farm? | Do farmers have it?
edible: Can you eat it? | Is it food?
sweet: Is it sweet? | Does it taste sweet?
raw: Is it often eaten raw? | Do people eat it uncooked?
peel: Is it peeled before it is eaten? | Do you peel it?
tree: Does it grow on trees? | Does it come from a tree?
underground: Does it grow underground? | Does it grow in the ground?
leaves: Does it have leaves? | Is it leafy?
seeds: Does it have many small seeds? | Is it full of seeds?
tropical: Does it come from hot countries? | Is it tropical?
red: Is it often red? | Is it red?
yellow: Is it yellow or orange? | Is it yellow?
green: Is it green?
brown: Is it brown?
white: Is it white?
electric: Does it use electricity? | Is it electric?
battery: Does it run on a battery? | Does it have a battery?
screen: Does it have a screen? | Does it have a display?
motor: Does it have a motor? | Does it have an engine?
wheels: Does it have wheels? | Does it roll on wheels?
moves: Can it move by itself? | Does it move on its own?
flies: Can it fly? | Does it fly?
sea: Is it used at sea? | Does it travel on water?
loud: Is it loud? | Does it make a loud noise?
music: Does it make music? | Is it used for music?
strings: Does it have strings?
blown: Do you blow into it? | Is it played by blowing?
struck: Is it played by hitting it? | Do you hit it to play it?
bow: Is it played with a bow? | Does it need a bow?
buttons: Does it have buttons or keys? | Does it have keys?
handle: Does it have a handle? | Do you hold it by a handle?
blade: Does it have a blade? | Is there a blade on it?
sharp: Is it sharp? | Can it cut you?
parts: Does it have moving parts? | Do parts of it move?
hot: Does it get hot? | Does it produce heat?
cold: Is it used when it is cold? | Does it have to do with cold?
picture: Does it show a picture? | Can you see a picture on it?
holds: Does it hold things inside? | Can you put things in it?
liquid: Is it used with water or other liquids? | Does it have to do with liquids?
numbers: Does it show numbers? | Are there numbers on it?
indoors: Is it used indoors? | Is it found in the house?
outdoors: Is it used outdoors? | Is it found outside?
kitchen: Is it found in a kitchen? | Does it belong in the kitchen?
bedroom: Is it found in a bedroom? | Does it belong in the bedroom?
office: Is it found in an office? | Does it belong on a desk?
garden: Is it found in a garden? | Does it belong in the garden?
workshop: Is it found in a workshop? | Does it belong in a workshop?
wear: Can you wear it? | Is it worn?
head: Is it worn on the head? | Do you put it on your head?
neck: Is it worn around the neck? | Do you put it around your neck?
hands: Is it worn on the hand or wrist? | Do you put it on your hand?
feet: Is it worn on the feet? | Do you put it on your feet?
legwear: Does it cover the legs? | Is it worn on the legs?
play: Do people play with it? | Is it used in play?
children: Is it made for children? | Do children like it most?
ball: Is it a ball?
team: Is it used in a team sport? | Is it used in a team game?
hits: Is it used to hit something? | Do you hit things with it?
protects: Does it protect the body? | Does it keep you safe?
writes: Is it used to write or draw? | Does it leave a mark on paper?
cuts: Is it used to cut? | Does it cut things?
cooks: Is it used to cook? | Does it help to cook?
table: Is it used at the table? | Is it used while eating?
sit: Do people sit on it? | Can you sit on it?
sleep: Do people sleep on it? | Can you sleep on it?
stores: Is it used to store things? | Does it keep things in order?
builds: Is it used to build or repair? | Do you repair things with it?
twists: Is it turned when it is used? | Do you turn it?
measures: Is it used to measure? | Does it measure something?
joins: Does it hold things together? | Does it join things?
soil: Is it used on soil? | Does it touch the soil?
decorates: Is it used for decoration? | Is it decorative?
costly: Is it expensive? | Does it cost a lot?
nature: Is it found in nature? | Is it natural?
made: Is it made by people? | Is it man-made?
people: Does it carry people? | Do people travel in it?
used_up: Is it used up over time? | Does it get used up?
folds: Can it be folded? | Does it fold?
"""

# category | the question that asks for it, and paraphrases | attributes; then its objects, the paper's first
OBJECTS = """
Sports | Is it used in sports? | Is it sports equipment? ; Is it a sport item? | onehand play outdoors made
a basketball: ball round rubber team yellow hollow
a football/soccer ball/american football: ball round leather team hollow
a baseball: ball round leather team white pocket
a tennis racket/racket/racquet/tennis racquet: long handle strings hits
a helmet: head wear protects plastic hollow
a golf club/club: long metal metalparts handle hits
a hockey stick/stick: long wood handle hits team cold
+skis/ski: long pair feet wear cold -onehand
a surfboard/board: person flat swims sea ridden plastic -onehand
a boxing glove/boxing gloves: hands wear pair leather soft protects hits red indoors
Animals | Is it an animal? | Is it a kind of animal? ; Is it a creature? | alive grows legs nature tail moves outdoors brown
a cat/kitten/house cat: fur pet meat soft indoors onehand -outdoors
a dog/puppy: fur pet meat soft indoors loud
a horse/pony: fur ridden farm person heavy
a lion: fur wild meat danger heavy tropical yellow loud person
an elephant: wild person heavy tropical -brown
a cow/bull: farm heavy person white
a chicken/hen/rooster: farm wings onehand edible loud
a duck: farm wings flies swims onehand edible wild
a fish/goldfish: swims edible pet onehand -legs -brown shiny
a snake: wild danger long meat green -legs -brown
Fruits | Is it a fruit? | Is it a piece of fruit? | edible sweet raw grows nature onehand kitchen indoors
an apple: round red tree green
a banana: long yellow peel tropical
a strawberry: red pocket seeds soft
a watermelon/melon: round heavy green seeds red -onehand
a mango: yellow tree tropical peel soft
an orange: round yellow tree peel
a pineapple: yellow tropical leaves point peel
a cherry/cherries: round red tree pocket pair
a grape/grapes: round pocket green soft
a lemon: yellow tree peel -sweet -raw
Vehicles | Is it a vehicle? | Is it used for transport? ; Is it a means of transport? | made metal metalparts motor people moves person heavy parts outdoors loud costly wheels danger
a car/automobile: glass rubber
a motorcycle/motorbike: ridden rubber shiny -glass
an airplane/plane/aeroplane: flies wings glass house
a helicopter: flies glass -wheels
a ship/boat: sea swims house hollow -wheels
a bus: glass rubber house numbers yellow
a train: glass house long
a bicycle/bike: ridden rubber -motor -heavy -loud -person handle
a truck/lorry: glass rubber holds stores
a submarine: sea swims hollow long house -wheels
Clothes | Is it a piece of clothing? | Is it clothing? ; Is it an item of clothing? | wear cloth soft made bedroom indoors onehand folds
a shirt/t-shirt: buttons white
a jacket/coat: buttons outdoors cold holds
a dress: decorates
+boots/boot: feet pair leather outdoors cold protects rubber -cloth -soft -folds
a scarf: neck cold outdoors long
+pants/trousers/jeans: legwear buttons holds
+socks/sock: feet pair pocket
a hat/cap: head outdoors
a skirt: legwear
a tie/necktie: neck long decorates
Electronics | Is it an electronic device? | Is it electronic? ; Is it a device? | made electric metalparts plastic buttons costly indoors parts
a smartphone/phone/cell phone/mobile phone: pocket onehand battery screen glass flat picture numbers office
a television/tv: screen picture glass flat loud -parts bedroom
a camera: onehand battery glass picture screen outdoors
a refrigerator/fridge: person heavy kitchen cold holds stores motor -buttons handle white
a blender: kitchen motor blade sharp loud liquid glass holds
a laptop/computer/notebook computer: battery screen picture folds flat office numbers
a microwave/microwave oven: kitchen hot cooks holds numbers glass
a washing machine/washer: heavy motor liquid holds loud white round
a toaster: kitchen hot cooks holds metal -buttons
+headphones/headphone/earphones: head wear pair music onehand -buttons -parts
Musical Instruments | Is it a musical instrument? | Is it an instrument? ; Does a musician play it? | made music indoors costly loud
a piano: person heavy buttons strings wood parts legs
a guitar: strings wood hollow
a violin/fiddle: strings wood hollow bow onehand
a trumpet: blown metal metalparts shiny buttons onehand parts
a harp: strings person heavy wood -loud
a flute: blown metal metalparts shiny long onehand -loud
a drum/drums: struck round hollow wood
a saxophone/sax: blown metal metalparts shiny buttons parts
a cello: strings wood hollow bow person
a xylophone: struck wood metalparts children flat
Furniture | Is it a piece of furniture? | Is it furniture? | made wood indoors heavy
a chair: sit legs office kitchen -heavy
a bed: sleep sit soft bedroom person cloth legs
a couch/sofa: sit sleep soft person cloth legs
a bookcase/bookshelf: stores holds person
a nightstand/bedside table: stores holds bedroom legs -heavy
a table/dining table: legs flat kitchen table person
a desk: legs flat office stores holds
a wardrobe/closet: stores holds bedroom person parts
a stool: sit legs round -heavy kitchen
a dresser/chest of drawers: stores holds bedroom parts handle legs
Office Supplies | Is it an office supply? | Is it used in an office? ; Is it stationery? | made office onehand indoors
a pen: pocket long writes point plastic used_up liquid
a stapler: metal metalparts parts joins
a calculator: electric battery screen numbers buttons plastic flat
+scissors/pair of scissors: metal metalparts blade sharp cuts handle parts point danger
a diary/journal/planner: paper flat folds bedroom
a pencil: pocket long writes point wood used_up sharp
an eraser/rubber: pocket rubber soft used_up
a ruler: long flat measures numbers plastic wood
an envelope: paper flat folds holds white
a paper clip/paperclip: pocket metal metalparts joins shiny
Vegetables | Is it a vegetable? | Is it a kind of vegetable? | edible grows nature onehand kitchen indoors garden outdoors farm
a carrot: underground long yellow raw peel sweet point
~broccoli: green
a tomato: red round raw seeds soft
~spinach: green leaves soft flat
a cucumber: green long raw seeds peel
a potato: underground brown round peel
an onion: underground round peel white
~lettuce: green leaves raw round
a pepper/bell pepper: red green hollow raw seeds
a pumpkin: round yellow heavy hollow seeds decorates -onehand
Art | Is it used in art? | Is it related to art? ; Do artists have it? | made decorates indoors
a painting: picture flat costly wood
a paintbrush/brush: long handle writes onehand wood liquid -decorates
a canvas: flat cloth white wood -decorates
a sculpture/statue: clay heavy costly outdoors person
a marker/felt-tip pen: writes onehand pocket long plastic used_up office -decorates
an easel: wood legs person folds -decorates
a photograph/photo: picture flat paper onehand
a vase: holds hollow liquid glass clay fragile onehand
a mosaic: picture flat clay glass shiny heavy
~paint: liquid used_up writes onehand -decorates
Kitchen Tools | Is it a kitchen tool? | Is it a kitchen utensil? ; Is it kitchenware? | made kitchen indoors onehand metal metalparts shiny
a knife/kitchen knife: blade sharp cuts handle danger table point long
a fork: handle table point long
a bowl: table holds hollow round clay liquid -metal -metalparts
a frying pan/pan/skillet: cooks hot handle round flat heavy
a whisk: handle cooks
a spoon: handle table long liquid
a plate/dish: table flat round clay fragile white -metal -metalparts
a cup/mug/glass: table holds hollow liquid clay fragile handle -metal -metalparts
a cutting board/chopping board: flat wood -metal -metalparts -shiny
a kettle/teakettle: cooks hot handle holds hollow liquid loud
Nature | Is it a part of nature? | Is it found in a landscape? ; Is it a natural thing? | nature outdoors
a rock/stone: clay onehand garden
a tree: alive grows leaves person wood green heavy garden
a mountain: house person heavy clay point cold danger
an ocean/sea: house person liquid danger sea
a cactus: alive grows green point tropical danger sharp
a river: person house liquid long moves
a flower/rose: alive grows leaves onehand garden red decorates soft
a cloud: white flies soft moves house liquid
a leaf: green flat onehand pocket grows tree
a desert: house person hot tropical yellow danger
Toys | Is it a toy? | Is it a kind of toy? | made play children indoors onehand
~lego/lego brick/lego bricks: plastic pocket builds joins red
a doll: plastic cloth legs
a kite: flies outdoors cloth strings wings -indoors
a puzzle/jigsaw puzzle/jigsaw: flat picture paper joins
a stuffed animal/teddy bear/plush toy: soft cloth fur bedroom legs
a yo-yo/yoyo: round pocket strings plastic moves
a balloon: round hollow rubber flies blown red used_up
a toy car/model car: wheels metalparts pocket metal
+building blocks/blocks/block: wood builds
a board game/chess: flat paper picture team
Jewelry | Is it jewelry? | Is it a piece of jewelry? ; Is it jewellery? | made wear metal metalparts shiny pocket onehand costly decorates indoors
+earrings/earring: pair head
a necklace: neck long
a ring/wedding ring: hands round hollow
a watch/wristwatch: hands numbers parts glass battery round
a pendant: neck
a bracelet: hands round
a brooch: point joins
a crown/tiara: head round red -pocket
+cufflinks/cufflink: pair hands joins
a pearl/pearls: round white nature -metal -metalparts
Garden Supplies | Is it used for gardening? | Is it a garden supply? ; Do gardeners use it? | made garden outdoors
a shovel/spade: long handle metalparts soil heavy
a rake: long handle metalparts soil point wood
a watering can: holds hollow liquid handle onehand plastic
a lawn mower/lawnmower/mower: motor wheels blade sharp cuts loud heavy danger handle metalparts parts costly
+gardening gloves/gloves/garden gloves/glove: hands wear pair protects soft cloth onehand soil
a hose/garden hose: long liquid rubber hollow
a wheelbarrow: wheels handle holds metal metalparts heavy soil
+pruning shears/pruners/shears: cuts blade sharp handle metal metalparts onehand parts
a flower pot/flowerpot/plant pot: holds hollow round clay soil indoors onehand
a trowel: handle metal metalparts soil onehand point
Tools | Is it a tool for building? | Is it a hand tool or power tool? ; Is it in a toolbox? | made workshop builds metal metalparts indoors onehand handle
a hammer: hits heavy wood
a screwdriver: twists long point
a wrench/spanner: twists long
a saw/handsaw: cuts blade sharp danger long
a drill/power drill: electric motor loud twists point parts danger battery
+pliers: parts twists
a tape measure/measuring tape: measures numbers folds pocket round -handle
an axe/ax: cuts blade sharp danger outdoors heavy wood hits
a ladder: person long legs outdoors heavy -handle -onehand
a screw/screws: twists pocket joins point -handle
"""
